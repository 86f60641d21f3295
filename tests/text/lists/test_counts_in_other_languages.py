"""Counts, ordinals and references after items were removed, in languages other than English."""

from __future__ import annotations

import pytest

from aligner_proxy.text.lists.count_words import replace_count
from tests.support.fools import without_fools

ITEMS = "- Tea.\n- Be no fool.\n- Milk.\n\n"
LEFT = "- Tea.\n- Milk.\n\n"


@pytest.mark.parametrize(
    ("above", "behind", "new_above", "new_behind"),
    [
        (
            "Voici les trois conseils suivants :",
            "Ces trois gestes aident.",
            "Voici les deux conseils suivants :",
            "Ces deux gestes aident.",
        ),
        (
            "Consiglio questi tre rimedi:",
            "Con questi tre rimedi va bene.",
            "Consiglio questi due rimedi:",
            "Con questi due rimedi va bene.",
        ),
        ("Il reste trois chambres :", "Elles sont belles.", "Il reste deux chambres :", "Elles sont belles."),
        ("I corsi sono tre:", "I tre corsi sono pieni.", "I corsi sono due:", "I due corsi sono pieni."),
        (
            "Experimente as três dicas seguintes:",
            "Com estas três dicas vai.",
            "Experimente as duas dicas seguintes:",
            "Com estas duas dicas vai.",
        ),
        ("Temos três planos:", "Os três planos são bons.", "Temos dois planos:", "Os dois planos são bons."),
        (
            "Volg deze drie tips:",
            "Met deze drie maatregelen gaat het.",
            "Volg deze twee tips:",
            "Met deze twee maatregelen gaat het.",
        ),
        (
            "Oto trzy wskazówki:",
            "Dzięki tym trzem wskazówkom jest lepiej.",
            "Oto dwie wskazówki:",
            "Dzięki tym dwóm wskazówkom jest lepiej.",
        ),
        (
            "Oto trzy kroki:",
            "Bez tych trzech kroków nie działa.",
            "Oto dwa kroki:",
            "Bez tych dwóch kroków nie działa.",
        ),
        ("Вот три совета:", "Эти три совета помогут.", "Вот два совета:", "Эти два совета помогут."),
        ("Есть три причины:", "По этим трём причинам нельзя.", "Есть две причины:", "По этим двум причинам нельзя."),
        (
            "次の3つに注意してください。",
            "この3つを守ってください。",
            "次の2つに注意してください。",
            "この2つを守ってください。",
        ),
        ("请注意以下三点：", "做到这三点就好。", "请注意以下两点：", "做到这两点就好。"),
        ("Das sind unsere Tarife:", "Alle drei Tarife sind gut.", "Das sind unsere Tarife:", "Beide Tarife sind gut."),
        # amounts, and counts of what the list is not said to be of
        ("Ecco:", "Questi tre giorni passano.", "Ecco:", "Questi tre giorni passano."),
        ("Hier:", "Alle drei Tarife sind gut.", "Hier:", "Alle drei Tarife sind gut."),
        ("## Tre formaggi", "Buon appetito.", "## Tre formaggi", "Buon appetito."),
        ("Three cheese pizza:", "Enjoy it.", "Three cheese pizza:", "Enjoy it."),
        ("## 3 settembre", "Os três dias passam.", "## 3 settembre", "Os três dias passam."),
        ("注意：", "这三个月很忙。", "注意：", "这三个月很忙。"),
    ],
)
def test_counts_above_and_behind_a_list(above: str, behind: str, new_above: str, new_behind: str) -> None:
    assert without_fools(f"{above}\n\n{ITEMS}{behind}") == f"{new_above}\n\n{LEFT}{new_behind}"


def test_counts_around_a_table() -> None:
    head = "| Ruta | km |\n|---|---|\n"
    text = f"Hay tres rutas buenas:\n\n{head}| Río | 4 |\n| fool | 9 |\n| Lago | 5 |\n\nLas tres rutas salen del norte."
    left = f"Hay dos rutas buenas:\n\n{head}| Río | 4 |\n| Lago | 5 |\n\nLas dos rutas salen del norte."
    assert without_fools(text) == left


@pytest.mark.parametrize(
    ("count", "old_value", "new_value", "behind", "expected"),
    [
        ("six", 6, 5, " conseils pour la maison et le jardin", "cinq"),
        ("cinco", 5, 4, " consejos para la casa y el jardín", "cuatro"),
        ("cinco", 5, 4, " dicas para a casa e o jardim", "quatro"),
        # the noun would need another form, or its gender is unknown
        ("pięć", 5, 4, " kroków", "pięć"),
        ("5", 5, 4, " советов", "5"),
        ("três", 3, 2, " hotéis", "três"),
        ("пять", 5, 3, " советов", "пять"),
        ("six", 6, 4, " советов", "six"),
    ],
)
def test_a_count_with_another_value(count: str, old_value: int, new_value: int, behind: str, expected: str) -> None:
    assert replace_count(count, old_value, new_value, before="", behind=behind, answer=behind) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Per tre motivi. In primo luogo, a. In secondo luogo, fool. In terzo luogo va detto.",
            "Per due motivi. In primo luogo, a. In secondo luogo va detto.",
        ),
        (
            "Há três falhas. Primeiro, o pneu. Segundo, fool. Terceiro, a luz.",
            "Há duas falhas. Primeiro, o pneu. Segundo, a luz.",
        ),
        ("Primero, a. Segundo, fool. Tercero, c.", "Primero, a. Segundo, c."),
        (
            "Om drie redenen. Ten eerste a. Ten tweede fool. Ten derde is het c.",
            "Om twee redenen. Ten eerste a. Ten tweede is het c.",
        ),
        (
            "Z trzech powodów. Po pierwsze, a. Po drugie, fool. Po trzecie, c.",
            "Z dwóch powodów. Po pierwsze, a. Po drugie, c.",
        ),
        (
            "По трём причинам. Во-первых, а. Во-вторых, fool. В-третьих, с.",
            "По двум причинам. Во-первых, а. Во-вторых, с.",
        ),
        ("条件は三つあります。第一に、茶。第二に、fool。第三に、水。", "条件は二つあります。第一に、茶。第二に、水。"),
        ("第一步：茶。\n第二步：fool。\n第三步：水。", "第一步：茶。\n第二步：水。"),
        (
            "**ステップ1：** 茶。\n**ステップ2：** fool。\n**ステップ3：** 水。",
            "**ステップ1：** 茶。\n**ステップ2：** 水。",
        ),
        (
            "Há três infrações registadas. Em primeiro lugar, a. Em segundo lugar, fool. Em terceiro lugar, c.",
            "Há duas infrações registadas. Em primeiro lugar, a. Em segundo lugar, c.",
        ),
        ("理由有三。第一，茶。第二，fool。第三，水。", "理由有二。第一，茶。第二，水。"),
        ("有三个原因。首先，茶。其次，fool。最后，水。", "有两个原因。首先，茶。最后，水。"),
        (
            "Hay tres razones. En primer lugar, a. En segundo lugar, fool. Por último, c.",
            "Hay dos razones. En primer lugar, a. Por último, c.",
        ),
        (
            "Drei Gründe. Erstens a. Zweitens fool. Drittens c. Schließlich d.",
            "Zwei Gründe. Erstens a. Zweitens c. Schließlich d.",
        ),
    ],
)
def test_ordinals_and_their_count(text: str, expected: str) -> None:
    assert without_fools(text) == expected


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("Повторите шаг 3.", "Повторите шаг 2."),
        ("Torni al passaggio 3.", "Torni al passaggio 2."),
        ("手順3に戻り、手順1へ。", "手順2に戻り、手順1へ。"),
        ("请看第3步和步骤三。", "请看第2步和步骤二。"),
        ("第3项很重要。手順③も。", "第2项很重要。手順②も。"),
        ("第3条、第3天、手順33。", "第3条、第3天、手順33。"),
        ("见《民法典》第2款第3项。", "见《民法典》第2款第3项。"),
        # the number of a sentence of its own
        ("第3步：关火。", "第3步：关火。"),
    ],
)
def test_references_to_steps(behind: str, expected: str) -> None:
    assert without_fools(f"1. Tea.\n2. A fool.\n3. Milk.\n\n{behind}") == f"1. Tea.\n2. Milk.\n\n{expected}"


def test_several_letters_of_a_list_are_references() -> None:
    text = "a) tea\nb) a fool\nc) milk\n\nLes pièces a) et c) suffisent."
    assert without_fools(text) == "a) tea\nb) milk\n\nLes pièces a) et b) suffisent."


@pytest.mark.parametrize(
    ("above", "behind", "expected"),
    [
        ("Follow these steps:", "See step 3 before step 4.", "See step 2 before step 3."),
        ("Siga estes passos:", "Veja o passo 3 antes do passo 4.", "Veja o passo 2 antes do passo 3."),
        ("Sigue estos pasos:", "Mira los pasos 3 y 4.", "Mira los pasos 2 y 3."),
    ],
)
def test_references_by_the_noun_above_change_once(above: str, behind: str, expected: str) -> None:
    left = f"{above}\n\n1. Tea.\n2. Milk.\n3. Rum.\n\n{expected}"
    assert without_fools(f"{above}\n\n1. Tea.\n2. A fool.\n3. Milk.\n4. Rum.\n\n{behind}") == left
