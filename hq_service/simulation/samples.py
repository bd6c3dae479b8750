"""What the fleet looks like at one moment: measured once a second while a simulation runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """The whole fleet at one moment.

    The ``*_total`` count from the beginning of the run; the others are as things are now.
    ``backlog_lines`` are lines that HQ has not confirmed, ``backlog_minor`` what they amount to;
    ``exposure_minor`` is what tills that are offline could still spend by their grants.

    Units:  ``second`` since the fleet opened; amounts in the smallest unit of the fleet's currency.
    """

    second: float
    sales_total: int
    offline_sales_total: int
    refused_total: int
    requests_total: int
    locks_held: int
    backlog_lines: int
    backlog_minor: int
    exposure_minor: int
    tills_online: int
    tills_offline: int
