"""The words of the documents: complete in five languages, and the documents' own."""

from __future__ import annotations

import re

import pytest

from hq_service.domain import glossary
from hq_service.domain.definitions import ValueType
from hq_service.domain.glossary import ENGLISH, GLOSSARY, LANGUAGES, Term, terms_of, text
from hq_service.domain.parameter_texts import (
    CHOICES,
    CREDIT_MEMO_PARAMETER,
    DOCUMENTED,
    GIFT_CARD_PARAMETER,
    HELP,
    LABELS,
    UNITS,
    describe,
)
from hq_service.domain.parameters import DEFINITION_BY_NAME, DEFINITIONS

# What the documents say, word for word, by the name of the document's file.
SWEDISH, DUTCH, CHINESE, FRENCH, SWEDISH_OFFLINE = (
    "000_45ffa6f3494c2dc1.txt",
    "001_1e947eaa4fca4419.txt",
    "002_8896a1b2c107b7a6.txt",
    "003_41c45d0d4eacebc6.txt",
    "004_ec4ea8b7321f504e.txt",
)
SENTENCES = {
    (SWEDISH, "gift card"): (
        "gå till fliken **Bokföring** på sidan **Commerce-parametrar**. På den fliken letar du upp"
        " snabbfliken **presentkort** och ställer in **Tillåt presentkortstransaktioner i"
        " offlineläge** till **ja**."
    ),
    (SWEDISH, "credit memo"): (
        "gå till fliken **Bokföring** på sidan **Commerce-parametrar**. På den fliken letar du upp"
        " snabbfliken **kreditnota** och ställer in **Tillåt transaktioner för kreditnota i"
        " offlineläge** till **ja**."
    ),
    (DUTCH, "gift card"): (
        "Ga naar het tabblad **Boeking** op de pagina **Commerce-parameters** om de"
        " functionaliteit voor het voltooien van transacties met geschenkbonnen in te schakelen"
        " nadat u bent overgeschakeld naar de offline modus. Ga op dat tabblad naar het"
        " sneltabblad **Geschenkbon** en stel **Uitvoeren van transactie met geschenkbon in"
        " offline modus toestaan** in op **Ja**."
    ),
    (DUTCH, "credit memo"): (
        "Ga naar het tabblad **Boeking** op de pagina **Commerce-parameters** om de"
        " functionaliteit voor het voltooien van transacties met creditnota's in te schakelen"
        " nadat u bent overgeschakeld naar de offline modus. Ga op dat tabblad naar het"
        " sneltabblad **Creditnota** en stel **Uitvoeren van transactie met creditnota in offline"
        " modus toestaan** in op **Ja**."
    ),
    (CHINESE, "gift card"): (
        "请转到 **Commerce 参数** 页中的 **过帐** 选项卡。"
        " 在该选项卡上，找到 **礼品卡** 快速选项卡，"  # noqa: RUF001
        "然后将 **允许在脱机模式下完成礼品卡交易** 设置为 **是**。"
    ),
    (CHINESE, "credit memo"): (
        "请转到 **Commerce 参数** 页中的 **过帐** 选项卡。"
        " 在该选项卡上，找到 **贷项通知单** 快速选项卡，"  # noqa: RUF001
        "然后将 **允许在脱机模式下完成贷项通知单交易** 设置为 **是**。"
    ),
    (FRENCH, "gift card"): (
        "accédez à l'onglet **Validation** dans la page **Paramètres Commerce**. Dans cet onglet,"
        " recherchez le raccourci **Carte cadeau** et définisez **Autoriser la conclusion des"
        " transactions par carte cadeau en mode hors connexion** sur **Oui**."
    ),
    (FRENCH, "credit memo"): (
        "accédez à l'onglet **Validation** dans la page **Paramètres commerciaux**. Dans cet"
        " onglet, recherchez le raccourci **Avoir** et définisez **Autoriser la conclusion des"
        " transactions par avoir en mode hors connexion** sur **Oui**."
    ),
    (SWEDISH_OFFLINE, "setup"): (
        "För att aktivera offlinestöd för en kassaenhet (kassaregister), ställ in alternativet"
        " **Stöd offline** till **Ja** på sidan **Register**. En ny kanaldatabasenhet skapas och"
        " läggs till i butikens kanaldatagruppen."
    ),
    (SWEDISH_OFFLINE, "button"): (
        "Namnet på den här knappen är **Koppla från** när Retail Modern POS är ansluten till"
        " butiksservern och **Anslut** när den är frånkopplad."
    ),
    (SWEDISH_OFFLINE, "window"): (
        "fönstret **Anslutningsstatus** visar status för det senaste försöket att synkronisera med"
        " offlinedatabasen."
    ),
}
LANGUAGE = {
    SWEDISH: "sv",
    DUTCH: "nl",
    CHINESE: "zh-CN",
    FRENCH: "fr",
    SWEDISH_OFFLINE: "sv",
}
# What a document prints in bold where it sends a person to a parameter, in its order.
IN_ORDER = {
    "sv": (Term.POSTING, Term.COMMERCE_PARAMETERS),
    "nl": (Term.POSTING, Term.COMMERCE_PARAMETERS),
    "zh-CN": (Term.COMMERCE_PARAMETERS, Term.POSTING),
    "fr": (Term.POSTING, Term.COMMERCE_PARAMETERS),
}
# Plain words of the documents' sentences.
WORDS = {
    SWEDISH: {
        Term.REAL_TIME_SERVICE: "är beroende av realtidsservice",
        Term.CHANNEL_DATABASE: "förlorar sin anslutning till kanaldatabasen",
        Term.COMMERCE_HEADQUARTERS: "synkroniseras till Commerce-administration när",
        Term.DISTRIBUTION_SCHEDULE: "distributionsplanen har initierats",
        Term.UNLOCK: "Synkroniseringen låser även upp presentkortet",
        Term.IIS_RESET: "Återställ IIS om du vill att ändringen",
        Term.POS: "Om kassan förlorar anslutningen",
        Term.OFFLINE_MODE: "efter att du växlat till offlineläge",
    },
    DUTCH: {
        Term.REAL_TIME_SERVICE: "afhankelijk zijn van de realtime service",
        Term.CHANNEL_DATABASE: "de verbinding met de kanaaldatabase verliest",
        Term.COMMERCE_HEADQUARTERS: "gesynchroniseerd met Commerce Headquarters",
        Term.DISTRIBUTION_SCHEDULE: "de distributieplanning wordt gestart",
        Term.OFFLINE_MODE: "overgeschakeld naar de offline modus",
    },
    CHINESE: {
        Term.REAL_TIME_SERVICE: "交易记录有一些元素依赖于实时服务",
        Term.CHANNEL_DATABASE: "断开与渠道数据库之间的连接",
        Term.COMMERCE_HEADQUARTERS: "这些交易记录同步到 Commerce Headquarters",
        Term.DISTRIBUTION_SCHEDULE: "并且启动了分发计划以将更改同步到渠道之后",
        Term.LOCK: "礼品卡添加到交易记录之后将立即被锁定",
        Term.UNLOCK: "同步还将解锁礼品卡",
        Term.IIS_RESET: "请重置 IIS",
        Term.OFFLINE_MODE: "若要在切换到脱机模式后",
        Term.POS: "而在 POS 脱机时不支持这些元素",
        Term.TERMINAL: "使其可在另一台终端中使用",
    },
    FRENCH: {
        Term.REAL_TIME_SERVICE: "dépendent du service en temps réel",
        Term.CHANNEL_DATABASE: "perd sa connexion à la base de données du canal",
        Term.COMMERCE_HEADQUARTERS: "synchronisées avec Commerce Headquarters",
        Term.DISTRIBUTION_SCHEDULE: "que le programme de distribution est lancé",
        Term.OFFLINE_MODE: "le basculement en mode hors connexion",
        Term.POS: "si le PDV perd la connectivité",
        Term.TERMINAL: "utilisée sur un autre terminal",
    },
    SWEDISH_OFFLINE: {
        Term.OFFLINE_PROFILE: "konfigurerad i offlineprofilen",
        Term.TIME_OUT_INTERVAL: "inom tidsgränsintervallet",
        Term.RECONNECTION_ATTEMPT_INTERVAL: "efter intervallet för återanslutningsförsök",
    },
}
# A document bends its words; the glossary has them as one would look them up.
BENT = {
    "intervall för återanslutningsförsök": "intervallet för återanslutningsförsök",
    "låsa upp": "låser även upp",
}


def bold(sentence: str) -> list[str]:
    return re.findall(r"\*\*(.+?)\*\*", sentence)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("term", Term)
def test_every_term_has_a_word_in_every_language(term: Term, language: str) -> None:
    written = text(term, language)
    assert written
    assert written == written.strip()
    assert terms_of(written, language) >= {term}


def test_the_glossary_has_all_terms_and_languages_and_no_other() -> None:
    assert set(GLOSSARY) == set(Term)
    assert all(tuple(by_language) == LANGUAGES for by_language in GLOSSARY.values())
    assert LANGUAGES == ("en", "sv", "nl", "zh-CN", "fr")


@pytest.mark.parametrize(("document", "about"), [one for one in SENTENCES if one[1] != "window"])
def test_a_word_in_bold_of_a_document_is_understood(document: str, about: str) -> None:
    for word in bold(SENTENCES[document, about]):
        assert terms_of(word, LANGUAGE[document]), word


@pytest.mark.parametrize(
    ("document", "about"), [one for one in SENTENCES if one[1] in ("gift card", "credit memo")]
)
def test_label_tab_and_fast_tab_are_word_for_word_those_of_the_documents(
    document: str, about: str
) -> None:
    language, words = LANGUAGE[document], bold(SENTENCES[document, about])
    name = GIFT_CARD_PARAMETER if about == "gift card" else CREDIT_MEMO_PARAMETER
    described = describe(DEFINITION_BY_NAME[name], language)
    assert described.path is not None
    place = dict(zip(IN_ORDER[language], words, strict=False))
    assert described.path.tab == place[Term.POSTING]
    assert [described.path.fast_tab, described.label] == words[2:4]
    # One French document calls the page by two names: one is the alias of the other.
    assert terms_of(place[Term.COMMERCE_PARAMETERS], language) == {Term.COMMERCE_PARAMETERS}
    assert about == "credit memo" or described.path.page == place[Term.COMMERCE_PARAMETERS]
    # One Swedish document writes "ja", the other one "Ja".
    assert words[4].capitalize() == described.choices[0].label


def test_what_the_swedish_document_on_offline_mode_prints_in_bold_is_word_for_word() -> None:
    words = [
        word
        for (document, _), sentence in SENTENCES.items()
        if document == SWEDISH_OFFLINE
        for word in bold(sentence)
    ]
    terms = (
        Term.SUPPORT_OFFLINE,
        Term.YES,
        Term.REGISTER,
        Term.DISCONNECT,
        Term.CONNECT,
        Term.CONNECTION_STATUS,
    )
    assert words == [text(term, "sv") for term in terms]


@pytest.mark.parametrize(
    ("document", "term"), [(document, term) for document in WORDS for term in WORDS[document]]
)
def test_plain_words_are_those_of_the_documents(document: str, term: Term) -> None:
    written = text(term, LANGUAGE[document])
    assert BENT.get(written, written).casefold() in WORDS[document][term].casefold()


@pytest.mark.parametrize(
    ("language", "written", "term"),
    [
        ("sv", "kreditfaktura", Term.CREDIT_MEMO),
        ("sv", "Tillgodokvitto", Term.CREDIT_MEMO),
        ("sv", "distributionstidsplan", Term.DISTRIBUTION_SCHEDULE),
        ("nl", "Cadeaukaart", Term.GIFT_CARD),
        ("nl", "ontgrendelen", Term.UNLOCK),
        ("nl", "vergrendelen", Term.LOCK),
        ("zh-CN", "销售点", Term.POS),
        ("zh-CN", "总部", Term.COMMERCE_HEADQUARTERS),
        ("fr", "paramètres commerciaux", Term.COMMERCE_PARAMETERS),
        ("fr", " Calendrier de distribution ", Term.DISTRIBUTION_SCHEDULE),
    ],
)
def test_other_words_for_the_same_are_understood(language: str, written: str, term: Term) -> None:
    assert terms_of(written, language) == {term}


def test_the_word_that_one_document_takes_for_unlocking_is_not_understood_as_that() -> None:
    # "... uppdateras presentkortet och tas bort": the card is unlocked, not removed.
    assert terms_of("tas bort", "sv") == frozenset()
    assert text(Term.UNLOCK, "sv") == "låsa upp"


@pytest.mark.parametrize(("name", "line"), [("gift", "presentkortsrad"), ("credit", "kreditnota")])
def test_where_the_swedish_label_leaves_out_concluding_the_help_says_it(
    name: str, line: str
) -> None:
    parameter = {"gift": GIFT_CARD_PARAMETER, "credit": CREDIT_MEMO_PARAMETER}[name]
    described = describe(DEFINITION_BY_NAME[parameter], "sv")
    assert "slutför" not in described.label
    assert "slutföras" in described.help
    assert line in described.help
    assert "kan påbörjas offline" in described.help


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: one.name)
def test_every_parameter_is_described_in_every_language(definition, language: str) -> None:
    described = describe(definition, language)
    assert described.label
    assert described.help[-1] in ".。"
    assert (described.path is not None) == (definition.name in DOCUMENTED)
    assert (described.unit_label is None) == (definition.unit is None)
    is_yes_no = definition.value_type is ValueType.YES_NO
    values = (True, False) if is_yes_no else definition.choices
    assert tuple(one.value for one in described.choices) == values
    assert all(one.label for one in described.choices)


def test_no_description_is_left_over_and_none_is_the_english_one() -> None:
    names = [one.name for one in DEFINITIONS]
    of_their_own = {name for name in names if name not in DOCUMENTED}
    assert tuple(LABELS) == LANGUAGES
    assert all(set(labels) == of_their_own for labels in LABELS.values())
    assert tuple(HELP) == tuple(one for one in LANGUAGES if one != ENGLISH)
    assert all(set(helps) == set(names) for helps in HELP.values())
    assert set(CHOICES) == {choice for one in DEFINITIONS for choice in one.choices}
    assert all(len(one) == len(LANGUAGES) for one in (*CHOICES.values(), *UNITS.values()))
    for name in names:
        told = [describe(DEFINITION_BY_NAME[name], language) for language in LANGUAGES]
        assert len({one.label for one in told}) == len(LANGUAGES)
        assert len({one.help for one in told}) == len(LANGUAGES)


def test_english_is_the_first_language() -> None:
    assert LANGUAGES[0] == ENGLISH == "en"
    assert glossary.wording(Term.YES, "en").text == "Yes"
