# The texts are in five languages, with the punctuation of each.
# ruff: noqa: RUF001
"""The Commerce parameters in words: label, help, choices, unit and place, in five languages.

The two documented parameters have the documents' own labels and places (`domain/glossary.py`); the
help says what is meant where a label says less. English help is that of `DEFINITIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hq_service.domain import glossary
from hq_service.domain.definitions import Definition, Unit, ValueType
from hq_service.domain.glossary import ENGLISH, Term
from hq_service.domain.parameters import RELEASE, STICKY

GIFT_CARD_PARAMETER = "allow_concluding_gift_card_transactions_offline"
CREDIT_MEMO_PARAMETER = "allow_concluding_credit_memo_transactions_offline"

DOCUMENTED: Mapping[str, tuple[Term, Term]] = {
    GIFT_CARD_PARAMETER: (Term.ALLOW_GIFT_CARD_OFFLINE, Term.GIFT_CARD),
    CREDIT_MEMO_PARAMETER: (Term.ALLOW_CREDIT_MEMO_OFFLINE, Term.CREDIT_MEMO),
}
"""Parameter -> its label and its FastTab: on the page Commerce parameters, tab Posting."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the documents send a person to find a parameter."""

    page: str
    tab: str
    fast_tab: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A value that a parameter may have, and its label."""

    value: bool | str
    label: str


@dataclass(frozen=True, slots=True)
class Description:
    """A parameter in the words of one language."""

    definition: Definition
    label: str
    help: str
    choices: tuple[Choice, ...]
    unit_label: str | None
    path: Place | None


def label(name: str, language: str) -> str:
    """Return what a parameter is called in one of `LANGUAGES`."""
    if name in DOCUMENTED:
        return glossary.text(DOCUMENTED[name][0], language)
    return LABELS[language][name]


def describe(definition: Definition, language: str) -> Description:
    """Return a parameter in the words of one of `LANGUAGES`."""
    name, unit = definition.name, definition.unit
    return Description(
        definition,
        label(name, language),
        definition.help if language == ENGLISH else HELP[language][name],
        _choices(definition, language),
        UNITS[unit][glossary.LANGUAGES.index(language)] if unit is not None else None,
        _place(name, language),
    )


def _choices(definition: Definition, language: str) -> tuple[Choice, ...]:
    if definition.value_type is ValueType.YES_NO:
        terms = ((True, Term.YES), (False, Term.NO))
        return tuple(Choice(value, glossary.text(term, language)) for value, term in terms)
    place = glossary.LANGUAGES.index(language)
    return tuple(Choice(one, CHOICES[one][place]) for one in definition.choices)


def _place(name: str, language: str) -> Place | None:
    if name not in DOCUMENTED:
        return None
    terms = (Term.COMMERCE_PARAMETERS, Term.POSTING, DOCUMENTED[name][1])
    return Place(*(glossary.text(term, language) for term in terms))


# Each in the order of `LANGUAGES`.
UNITS: Mapping[Unit, tuple[str, str, str, str, str]] = {
    Unit.SECONDS: ("seconds", "sekunder", "seconden", "秒", "secondes"),
    Unit.MINUTES: ("minutes", "minuter", "minuten", "分钟", "minutes"),
    Unit.HOURS: ("hours", "timmar", "uur", "小时", "heures"),
    Unit.MINOR: (
        "smallest unit of the currency",
        "valutans minsta enhet",
        "kleinste eenheid van de valuta",
        "币种的最小单位",
        "plus petite unité de la devise",
    ),
}
CHOICES: Mapping[str, tuple[str, str, str, str, str]] = {
    STICKY: (
        "Keep the lock",
        "Behåll låset",
        "Vergrendeling behouden",
        "保持锁定",
        "Conserver le verrouillage",
    ),
    RELEASE: ("Unlock", "Lås upp", "Ontgrendelen", "解锁", "Déverrouiller"),
    "reissue": (
        "Issue a new credit memo for the rest",
        "Utfärda en ny kreditnota på resten",
        "Nieuwe creditnota voor het restant uitgeven",
        "为余额签发新的贷项通知单",
        "Émettre un nouvel avoir pour le reste",
    ),
    "retain": (
        "Keep the rest on the credit memo",
        "Behåll resten på kreditnotan",
        "Restant op de creditnota laten staan",
        "余额保留在原贷项通知单上",
        "Conserver le reste sur l'avoir",
    ),
    "forfeit": (
        "Forfeit the rest",
        "Låt resten förfalla",
        "Restant laten vervallen",
        "余额作废",
        "Abandonner le reste",
    ),
}

# The labels of the documented two are in the glossary.
LABELS: Mapping[str, Mapping[str, str]] = {
    ENGLISH: {
        "parameter_cache_seconds": "Parameter cache time",
        "lease_seconds": "Presence time of a terminal",
        "offline_grant_hours": "Validity of an offline grant",
        "on_horizon": "When an offline grant has run out",
        "credit_memo_partial_use": "Partial use of a credit memo",
        "gift_card_cash_out_threshold_minor": "Gift card cash out threshold",
        "offline_age_hours_max": "Maximum age of an offline sale",
        "clock_skew_seconds_max": "Maximum clock skew of a till",
    },
    "sv": {
        "parameter_cache_seconds": "Cachetid för parametrar",
        "lease_seconds": "Närvarotid för terminal",
        "offline_grant_hours": "Giltighetstid för offlinetillstånd",
        "on_horizon": "När ett offlinetillstånd har gått ut",
        "credit_memo_partial_use": "Delvis använd kreditnota",
        "gift_card_cash_out_threshold_minor": "Tröskelvärde för inlösen av presentkort",
        "offline_age_hours_max": "Högsta ålder för offlineförsäljning",
        "clock_skew_seconds_max": "Högsta klockavvikelse för kassa",
    },
    "nl": {
        "parameter_cache_seconds": "Cachetijd van parameters",
        "lease_seconds": "Aanwezigheidstijd van terminal",
        "offline_grant_hours": "Geldigheidsduur van offline toestemming",
        "on_horizon": "Wanneer een offline toestemming is verlopen",
        "credit_memo_partial_use": "Gedeeltelijk gebruik van creditnota",
        "gift_card_cash_out_threshold_minor": "Drempel voor contante uitbetaling van geschenkbon",
        "offline_age_hours_max": "Maximale ouderdom van offline verkoop",
        "clock_skew_seconds_max": "Maximale klokafwijking van POS",
    },
    "zh-CN": {
        "parameter_cache_seconds": "参数缓存时间",
        "lease_seconds": "终端活动时限",
        "offline_grant_hours": "脱机授权有效期",
        "on_horizon": "脱机授权到期时",
        "credit_memo_partial_use": "贷项通知单部分使用",
        "gift_card_cash_out_threshold_minor": "礼品卡兑现阈值",
        "offline_age_hours_max": "脱机交易最长期限",
        "clock_skew_seconds_max": "POS 时钟最大偏差",
    },
    "fr": {
        "parameter_cache_seconds": "Durée de mise en cache des paramètres",
        "lease_seconds": "Durée de présence d'un terminal",
        "offline_grant_hours": "Durée de validité d'une autorisation hors connexion",
        "on_horizon": "À l'expiration d'une autorisation hors connexion",
        "credit_memo_partial_use": "Utilisation partielle d'un avoir",
        "gift_card_cash_out_threshold_minor": "Seuil de décaissement d'une carte cadeau",
        "offline_age_hours_max": "Ancienneté maximale d'une vente hors connexion",
        "clock_skew_seconds_max": "Écart maximal de l'horloge d'un PDV",
    },
}

# English help is that of the definitions.
HELP: Mapping[str, Mapping[str, str]] = {
    "sv": {
        GIFT_CARD_PARAMETER: (
            "Med Ja får en försäljning som fick sin presentkortsrad medan kassan var online"
            " slutföras efter att kassan har växlat till offlineläge. Den bokförs, och"
            " presentkortet låses upp, när offlinetransaktionerna kommer in till"
            " Commerce-administration. Inga presentkortsrader kan påbörjas offline."
        ),
        CREDIT_MEMO_PARAMETER: (
            "Med Ja får en försäljning som fick sin rad för kreditnota medan kassan var online"
            " slutföras efter att kassan har växlat till offlineläge. Den bokförs, och"
            " kreditnotan låses upp, när offlinetransaktionerna kommer in till"
            " Commerce-administration. Inga rader för kreditnota kan påbörjas offline."
        ),
        "parameter_cache_seconds": (
            "Hur länge en kassa får använda sin kopia av parametrarna. En distribuerad ändring"
            " gäller senast efter denna tid i varje kassa som är online, eller vid nästa"
            " livstecken när cachen återställs."
        ),
        "lease_seconds": (
            "Hur länge en terminal räknas som närvarande efter sitt senaste livstecken. Låset för"
            " en frånvarande terminal upphör att gälla, om det inte gavs med ett"
            " offlinetillstånd."
        ),
        "offline_grant_hours": (
            "Hur länge efter låsningen den terminal som har låset får använda det offline."
        ),
        "on_horizon": (
            "Vad som händer med ett lås med offlinetillstånd när tillståndet har gått ut."
        ),
        "credit_memo_partial_use": (
            "Vad som händer med resten av en kreditnota som används delvis."
        ),
        "gift_card_cash_out_threshold_minor": (
            "Upp till vilket saldo ett presentkort får lösas in kontant, per valuta och i"
            " valutans minsta enhet. Utan belopp för en valuta löses presentkort i den aldrig in."
        ),
        "offline_age_hours_max": (
            "En offlineförsäljning som kommer in senare än så efter att den slutfördes markeras"
            " som för gammal. Den regleras ändå."
        ),
        "clock_skew_seconds_max": (
            "Hur mycket en kassas klocka får gå före tiden i Commerce-administration innan"
            " kassans försäljningar markeras."
        ),
    },
    "nl": {
        GIFT_CARD_PARAMETER: (
            "Met Ja mag een verkoop die zijn geschenkbonregel kreeg toen het POS online was,"
            " worden voltooid nadat het POS is overgeschakeld naar de offline modus. De verkoop"
            " wordt geboekt en de geschenkbon gedeblokkeerd zodra de offline transacties bij"
            " Commerce Headquarters aankomen. Offline kan geen geschenkbonregel worden gestart."
        ),
        CREDIT_MEMO_PARAMETER: (
            "Met Ja mag een verkoop die zijn creditnotaregel kreeg toen het POS online was,"
            " worden voltooid nadat het POS is overgeschakeld naar de offline modus. De verkoop"
            " wordt geboekt en de creditnota gedeblokkeerd zodra de offline transacties bij"
            " Commerce Headquarters aankomen. Offline kan geen creditnotaregel worden gestart."
        ),
        "parameter_cache_seconds": (
            "Hoe lang een POS zijn kopie van de parameters mag gebruiken. Een gedistribueerde"
            " wijziging is uiterlijk na deze tijd van kracht op elk POS dat online is, of bij het"
            " eerstvolgende levensteken wanneer de cache opnieuw wordt ingesteld."
        ),
        "lease_seconds": (
            "Hoe lang een terminal na zijn laatste levensteken als aanwezig geldt. De"
            " vergrendeling van een afwezige terminal vervalt, tenzij er een offline toestemming"
            " bij is gegeven."
        ),
        "offline_grant_hours": (
            "Hoe lang na de vergrendeling de houder er offline gebruik van mag maken."
        ),
        "on_horizon": (
            "Wat er gebeurt met een vergrendeling met offline toestemming zodra die toestemming"
            " is verlopen."
        ),
        "credit_memo_partial_use": (
            "Wat er gebeurt met het restant van een creditnota die gedeeltelijk wordt gebruikt."
        ),
        "gift_card_cash_out_threshold_minor": (
            "Tot welk saldo een geschenkbon contant mag worden uitbetaald, per valuta en in de"
            " kleinste eenheid daarvan. Zonder bedrag voor een valuta worden geschenkbonnen in"
            " die valuta nooit uitbetaald."
        ),
        "offline_age_hours_max": (
            "Een offline verkoop die later dan dit na de voltooiing aankomt, wordt als te oud"
            " gemarkeerd. De verkoop wordt toch verwerkt."
        ),
        "clock_skew_seconds_max": (
            "Hoeveel de klok van een POS mag voorlopen op die van Commerce Headquarters voordat"
            " de verkopen worden gemarkeerd."
        ),
    },
    "zh-CN": {
        GIFT_CARD_PARAMETER: (
            "设为“是”时，如果礼品卡行是在 POS 联机时添加的，"
            "则 POS 切换到脱机模式后仍可完成该交易。"
            "脱机交易记录到达 Commerce Headquarters 后，交易将过帐，礼品卡将解锁。"
            "脱机时不能添加新的礼品卡行。"
        ),
        CREDIT_MEMO_PARAMETER: (
            "设为“是”时，如果贷项通知单行是在 POS 联机时添加的，"
            "则 POS 切换到脱机模式后仍可完成该交易。"
            "脱机交易记录到达 Commerce Headquarters 后，交易将过帐，贷项通知单将解锁。"
            "脱机时不能添加新的贷项通知单行。"
        ),
        "parameter_cache_seconds": (
            "POS 可以使用其参数副本的时间。"
            "已分发的更改最迟在此时间之后在每台联机的 POS 上生效；重置缓存时，"
            "在下一次心跳时生效。"
        ),
        "lease_seconds": (
            "终端在最后一次活动之后多长时间内仍视为活动。终端不再活动时，其锁定将失效，"
            "但附有脱机授权的锁定除外。"
        ),
        "offline_grant_hours": ("锁定之后，持有者可以脱机使用该锁定的时间。"),
        "on_horizon": ("附有脱机授权的锁定在授权到期后如何处理。"),
        "credit_memo_partial_use": ("贷项通知单仅部分使用时，余额如何处理。"),
        "gift_card_cash_out_threshold_minor": (
            "礼品卡余额不超过多少时可以兑现，按币种设置，以该币种的最小单位表示。"
            "未设置金额的币种，其礼品卡不能兑现。"
        ),
        "offline_age_hours_max": (
            "脱机交易在完成之后超过此时间才到达的，将标记为过旧，但仍会结算。"
        ),
        "clock_skew_seconds_max": (
            "POS 时钟可以比 Commerce Headquarters 的时钟快多少；超过时，其交易将被标记。"
        ),
    },
    "fr": {
        GIFT_CARD_PARAMETER: (
            "Avec Oui, une vente dont la ligne de carte cadeau a été ajoutée alors que le PDV"
            " était en ligne peut être conclue après le basculement en mode hors connexion. Elle"
            " est validée, et la carte cadeau déverrouillée, lorsque les transactions hors"
            " connexion arrivent dans Commerce Headquarters. Aucune ligne de carte cadeau ne peut"
            " être ajoutée hors connexion."
        ),
        CREDIT_MEMO_PARAMETER: (
            "Avec Oui, une vente dont la ligne d'avoir a été ajoutée alors que le PDV était en"
            " ligne peut être conclue après le basculement en mode hors connexion. Elle est"
            " validée, et l'avoir déverrouillé, lorsque les transactions hors connexion arrivent"
            " dans Commerce Headquarters. Aucune ligne d'avoir ne peut être ajoutée hors"
            " connexion."
        ),
        "parameter_cache_seconds": (
            "Durée pendant laquelle un PDV peut utiliser sa copie des paramètres. Une"
            " modification distribuée prend effet au plus tard après cette durée sur chaque PDV"
            " en ligne, ou au prochain signe de vie lorsque le cache est réinitialisé."
        ),
        "lease_seconds": (
            "Durée pendant laquelle un terminal est considéré comme présent après son dernier"
            " signe de vie. Le verrouillage d'un terminal absent devient caduc, sauf s'il a été"
            " accordé avec une autorisation hors connexion."
        ),
        "offline_grant_hours": (
            "Durée pendant laquelle, après un verrouillage, son détenteur peut l'utiliser hors"
            " connexion."
        ),
        "on_horizon": (
            "Ce que devient un verrouillage accordé avec une autorisation hors connexion une fois"
            " celle-ci expirée."
        ),
        "credit_memo_partial_use": ("Ce que devient le reste d'un avoir utilisé en partie."),
        "gift_card_cash_out_threshold_minor": (
            "Solde jusqu'auquel une carte cadeau peut être décaissée, par devise et dans la plus"
            " petite unité de celle-ci. Sans montant pour une devise, les cartes cadeaux dans"
            " cette devise ne sont jamais décaissées."
        ),
        "offline_age_hours_max": (
            "Une vente hors connexion qui arrive plus tard que cela après sa conclusion est"
            " signalée comme trop ancienne. Elle est tout de même traitée."
        ),
        "clock_skew_seconds_max": (
            "Avance que l'horloge d'un PDV peut avoir sur celle de Commerce Headquarters avant"
            " que ses ventes soient signalées."
        ),
    },
}
