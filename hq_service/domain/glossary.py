"""The words of the documents in five languages: one term, one wording, and the aliases of it.

Labels and messages take their words from here, so that a person who reads the documents finds the
words of the documents. What is written by a person or another system may also use an alias.
Source: the documents on the seamless offline switch (sv-SE, nl-NL, zh-CN, fr-FR) and on POS offline
functionality (sv-SE), word for word, capitals included; what they do not name is from the same
product's other translated pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

ENGLISH = "en"
LANGUAGES = (ENGLISH, "sv", "nl", "zh-CN", "fr")


class Term(StrEnum):
    """A word of the documents, whatever the language."""

    COMMERCE_PARAMETERS = "commerce_parameters"
    POSTING = "posting"
    FAST_TAB = "fast_tab"
    GIFT_CARD = "gift_card"
    CREDIT_MEMO = "credit_memo"
    ALLOW_GIFT_CARD_OFFLINE = "allow_concluding_gift_card_transactions_offline"
    ALLOW_CREDIT_MEMO_OFFLINE = "allow_concluding_credit_memo_transactions_offline"
    YES = "yes"
    NO = "no"
    DISTRIBUTION_SCHEDULE = "distribution_schedule"
    RUN_NOW = "run_now"
    GLOBAL_CONFIGURATION = "global_configuration"
    CHANNEL_CONFIGURATION = "channel_configuration"
    REGISTERS = "registers"
    STAFF = "staff"
    CHANNEL_DATABASE = "channel_database"
    CHANNEL_DATA_GROUP = "channel_data_group"
    COMMERCE_HEADQUARTERS = "commerce_headquarters"
    REAL_TIME_SERVICE = "real_time_service"
    POS = "pos"
    REGISTER = "register"
    TERMINAL = "terminal"
    SUPPORT_OFFLINE = "support_offline"
    OFFLINE_PROFILE = "offline_profile"
    TIME_OUT_INTERVAL = "time_out_interval"
    RECONNECTION_ATTEMPT_INTERVAL = "reconnection_attempt_interval"
    CONNECTION_STATUS = "connection_status"
    DISCONNECT = "disconnect"
    CONNECT = "connect"
    LOCK = "lock"
    UNLOCK = "unlock"
    OFFLINE_MODE = "offline_mode"
    IIS_RESET = "iis_reset"


@dataclass(frozen=True, slots=True)
class Wording:
    """How a term is written in one language, and what else is understood."""

    text: str
    aliases: tuple[str, ...] = ()


def wording(term: Term, language: str) -> Wording:
    """Return how a term is written in one of `LANGUAGES`."""
    return GLOSSARY[term][language]


def text(term: Term, language: str) -> str:
    """Return the word of the documents for a term in one of `LANGUAGES`."""
    return wording(term, language).text


def terms_of(written: str, language: str) -> frozenset[Term]:
    """Return what a word can mean in a language, aliases included, capitals or not.

    More than one where the documents use one word twice; none for a word that they do not use.
    """
    wanted = written.strip().casefold()
    return frozenset(
        term
        for term, by_language in GLOSSARY.items()
        if wanted
        in {one.casefold() for one in (by_language[language].text, *by_language[language].aliases)}
    )


def _wordings(
    en: str | Wording,
    sv: str | Wording,
    nl: str | Wording,
    zh_cn: str | Wording,
    fr: str | Wording,
) -> Mapping[str, Wording]:
    given = (en, sv, nl, zh_cn, fr)
    return {
        language: one if isinstance(one, Wording) else Wording(one)
        for language, one in zip(LANGUAGES, given, strict=True)
    }


def _also(text: str, *aliases: str) -> Wording:
    return Wording(text, aliases)


GLOSSARY: Mapping[Term, Mapping[str, Wording]] = {
    Term.COMMERCE_PARAMETERS: _wordings(
        "Commerce parameters",
        "Commerce-parametrar",
        "Commerce-parameters",
        "Commerce 参数",
        _also("Paramètres Commerce", "Paramètres commerciaux"),
    ),
    Term.POSTING: _wordings("Posting", "Bokföring", "Boeking", "过帐", "Validation"),
    Term.FAST_TAB: _wordings(
        "FastTab", "snabbflik", "sneltabblad", "快速选项卡", _also("raccourci", "organisateur")
    ),
    Term.GIFT_CARD: _wordings(
        "Gift card",
        "presentkort",
        _also("Geschenkbon", "geschenkkaart", "cadeaukaart"),
        "礼品卡",
        "Carte cadeau",
    ),
    Term.CREDIT_MEMO: _wordings(
        "Credit memo",
        _also("kreditnota", "kreditfaktura", "tillgodokvitto"),
        "Creditnota",
        "贷项通知单",
        "Avoir",
    ),
    # The Swedish labels leave out "concluding". They are kept: people look for them. What is
    # meant, the help of the parameters says.
    Term.ALLOW_GIFT_CARD_OFFLINE: _wordings(
        "Allow concluding gift card transactions in offline mode",
        "Tillåt presentkortstransaktioner i offlineläge",
        "Uitvoeren van transactie met geschenkbon in offline modus toestaan",
        "允许在脱机模式下完成礼品卡交易",
        "Autoriser la conclusion des transactions par carte cadeau en mode hors connexion",
    ),
    Term.ALLOW_CREDIT_MEMO_OFFLINE: _wordings(
        "Allow concluding credit memo transactions in offline mode",
        "Tillåt transaktioner för kreditnota i offlineläge",
        "Uitvoeren van transactie met creditnota in offline modus toestaan",
        "允许在脱机模式下完成贷项通知单交易",
        "Autoriser la conclusion des transactions par avoir en mode hors connexion",
    ),
    Term.YES: _wordings("Yes", "Ja", "Ja", "是", "Oui"),
    Term.NO: _wordings("No", "Nej", "Nee", "否", "Non"),
    Term.DISTRIBUTION_SCHEDULE: _wordings(
        "distribution schedule",
        _also("distributionsplan", "distributionsschema", "distributionstidsplan"),
        _also("distributieplanning", "distributieschema"),
        _also("分发计划", "分配计划", "配送计划"),
        _also("programme de distribution", "calendrier de distribution"),
    ),
    Term.RUN_NOW: _wordings("Run now", "Kör nu", "Nu uitvoeren", "立即运行", "Exécuter maintenant"),
    Term.GLOBAL_CONFIGURATION: _wordings(
        "Global configuration",
        "Global konfiguration",
        "Algemene configuratie",
        "全局配置",
        "Configuration globale",
    ),
    Term.CHANNEL_CONFIGURATION: _wordings(
        "Channel configuration",
        "Kanalkonfiguration",
        "Kanaalconfiguratie",
        "渠道配置",
        "Configuration des canaux",
    ),
    Term.REGISTERS: _wordings(
        "Registers", "register", "kassa's", "收银机", _also("Registres", "Caisses enregistreuses")
    ),
    Term.STAFF: _wordings("Staff", "personal", "Personeel", "人员", "Personnel"),
    Term.CHANNEL_DATABASE: _wordings(
        "channel database",
        "kanaldatabas",
        "kanaaldatabase",
        "渠道数据库",
        "base de données du canal",
    ),
    Term.CHANNEL_DATA_GROUP: _wordings(
        "channel data group",
        "kanaldatagrupp",
        "kanaalgegevensgroep",
        "渠道数据组",
        "regroupement de données du canal",
    ),
    Term.COMMERCE_HEADQUARTERS: _wordings(
        "Commerce Headquarters",
        "Commerce-administration",
        "Commerce Headquarters",
        _also("Commerce Headquarters", "总部"),
        "Commerce Headquarters",
    ),
    Term.REAL_TIME_SERVICE: _wordings(
        "real-time service",
        "realtidsservice",
        "realtime service",
        "实时服务",
        "service en temps réel",
    ),
    Term.POS: _wordings("POS", _also("kassa", "kassaenhet"), "POS", _also("POS", "销售点"), "PDV"),
    Term.REGISTER: _wordings(
        "Register",
        _also("Register", "kassaregister"),
        _also("Register", "kassa"),
        "收银机",
        _also("Registre", "caisse enregistreuse"),
    ),
    Term.TERMINAL: _wordings("terminal", "terminal", "terminal", "终端", "terminal"),
    Term.SUPPORT_OFFLINE: _wordings(
        "Support offline",
        "Stöd offline",
        "Offlineondersteuning",
        "支持脱机",
        "Prise en charge hors connexion",
    ),
    Term.OFFLINE_PROFILE: _wordings(
        "offline profile",
        "offlineprofil",
        "offlineprofiel",
        "脱机配置文件",
        "profil hors connexion",
    ),
    Term.TIME_OUT_INTERVAL: _wordings(
        "time-out interval",
        "tidsgränsintervall",
        "time-outinterval",
        "超时间隔",
        "intervalle d'expiration",
    ),
    Term.RECONNECTION_ATTEMPT_INTERVAL: _wordings(
        "reconnection attempt interval",
        "intervall för återanslutningsförsök",
        "interval voor opnieuw verbinden",
        "重新连接尝试间隔",
        "intervalle de tentative de reconnexion",
    ),
    Term.CONNECTION_STATUS: _wordings(
        "Connection status",
        "Anslutningsstatus",
        "Verbindingsstatus",
        "连接状态",
        "Statut de la connexion",
    ),
    Term.DISCONNECT: _wordings(
        "Disconnect", "Koppla från", "Verbinding verbreken", "断开连接", "Déconnecter"
    ),
    Term.CONNECT: _wordings("Connect", "Anslut", "Verbinden", "连接", "Connecter"),
    Term.LOCK: _wordings("lock", "låsa", _also("blokkeren", "vergrendelen"), "锁定", "verrouiller"),
    # One Swedish document says that a card is "removed" after the sale. It is not: no such alias.
    Term.UNLOCK: _wordings(
        "unlock",
        "låsa upp",
        _also("deblokkeren", "ontgrendelen"),
        "解锁",
        "déverrouiller",
    ),
    Term.OFFLINE_MODE: _wordings(
        "offline mode", "offlineläge", "offline modus", "脱机模式", "mode hors connexion"
    ),
    Term.IIS_RESET: _wordings(
        "IIS reset",
        "Återställ IIS",
        "IIS opnieuw instellen",
        "重置 IIS",
        "réinitialiser IIS",
    ),
}
