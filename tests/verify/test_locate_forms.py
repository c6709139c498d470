"""Extraction from what models really write: thoughts, tags, Markdown, other languages and their number formats."""

from __future__ import annotations

import pytest

from dereason.verify.kinds import Kind
from dereason.verify.locate import find_box
from verify.found import found_in as locate

OPTIONS = ["FIFO memory", "Flash memory", "LIFO memory", "LILO memory"]


def found(response: str, kind: Kind, options: list[str] | None = None) -> tuple[str, str] | None:
    extraction = locate(response, kind=kind, options=options)
    if extraction is None:
        return None
    assert 0 <= extraction.start < extraction.end <= len(response)
    return extraction.text, extraction.how


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>It is 3, or \\boxed{4}.</think>The answer is 5.", ("5", "final_answer")),
        ("<think>\\boxed{4}</think>So 5", ("5", "number")),
        ("<think>\\boxed{4}</think>\n\nI do not know.", None),
        ("<think>\\boxed{4}</think>\n\n", ("4", "boxed")),
        ("<think>so it is 4</think>", None),
        ("<think>Wait, \\boxed{4}, but", None),
        ("The answer is 7. <think>Is it? \\boxed{4}", ("7", "final_answer")),
        ("\\boxed{4} hm</think>It is \\boxed{5}.", ("5", "boxed")),
        ("<thinking>\\boxed{1}</thinking><reasoning>\\boxed{2}</reasoning>\\boxed{3}", ("3", "boxed")),
        ("<THINK>\\boxed{1}</THINK> \\boxed{3}", ("3", "boxed")),
        ("<think>a <think> b</think> \\boxed{1} </think> \\boxed{3}", ("3", "boxed")),
        ("<|begin_of_thought|>\\boxed{1}<|end_of_thought|><|begin_of_solution|>It is 2.", ("2", "number")),
        ("[THINK]\\boxed{1}[/THINK]2", ("2", "number")),
        ("<think>\\boxed{1}</think>\n<answer>42</answer>", ("42", "tag")),
        ("<think>use <answer>1</answer></think>\n<answer>42</answer>", ("42", "tag")),
        ("<answer>The sum is 5 + 7, \\boxed{12}.</answer> Good, 3 steps.", ("12", "tag")),
        ("<answer> $12$ apples </answer>", ("12", "tag")),
        ("<answer>4 or 5</answer>", ("4 or 5", "tag")),
        ("<answer>no solution</answer>, 5 steps", ("no solution", "tag")),
        ("<answer>\n42", ("42", "tag")),
        ("Put it in <answer> </answer>: <answer>7</answer>", ("7", "tag")),
        ("Put it in <answer></answer>. It is \\boxed{7}", ("7", "boxed")),
    ],
)
def test_thoughts_and_tags(response: str, expected: tuple[str, str] | None) -> None:
    assert found(response, Kind.NUMBER) == expected


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("**Answer:** 42", "42"),
        ("**Answer**: 42 apples", "42"),
        ("### Final Answer\n\n42\n\nIt took 3 steps.", "42"),
        ("## Answer\n\n**42**\n\nIt took 3 steps.", "42"),
        ("**Answer**\n42\n(3 steps)", "42"),
        ("Final answer:\n- 42\n\n3 steps", "42"),
        ("Final answer:\n> **42**\n\n3 steps", "42"),
        ("> **Answer:** 42\n> in 3 steps", "42"),
        ("Answer: `42` (3 steps)", "42"),
        ("Final answer:\n```\n42\n```\nin 3 steps", "42"),
        ("Final answer:\n```text\n42\n```\nin 3 steps", "42"),
        ("The answer is:\n\n$$\n42\n$$\n\nin 3 steps", "42"),
        ("The answer is\n\\[\n42\n\\]\nin 3 steps", "42"),
        ("| Step | Result |\n|---|---|\n| 1 | 40 |\n| **Answer** | **42** |\n| steps | 3 |", "42"),
        ("The answer to the first question is 42. It took 3 steps.", "42"),
        ("The answer must be 42. It took 3 steps.", "42"),
        ("The answer is 42 and not 43.", "42"),
        ("The answer is 42 = 6 \\cdot 7.", "42"),
        ("The answer is 42<|im_end|>\n", "42"),
        ("Answer \u2192 42, in 3 steps", "42"),
        ("__Answer__: -42", "-42"),
        ("The answer is forty-two. It took 3 steps.", "forty-two"),
        ("The answer is forty-two apples. It took 3 steps.", "forty-two"),
        ("The answer is forty-two or three. It took 3 steps.", "forty-two or three"),
        ("Answer: \\(42\\). In 3 steps.", "42"),
        ("*The answer is 42.* It took 3 steps.", "42"),
        # other languages
        ("Die Antwort ist 42. Das waren 3 Schritte.", "42"),
        ("Die Antwort lautet: **42**. Das waren 3 Schritte.", "42"),
        ("Antwort: 42 \u00c4pfel\n3 Schritte", "42"),
        ("La r\u00e9ponse est 42. Il y a 3 \u00e9tapes.", "42"),
        ("R\u00e9ponse finale : 42\n3 \u00e9tapes", "42"),
        ("La respuesta es 42. Son 3 pasos.", "42"),
        ("**Respuesta final:** 42\n3 pasos", "42"),
        ("A resposta correta \u00e9 42. S\u00e3o 3 passos.", "42"),
        ("La risposta \u00e8 42. Sono 3 passi.", "42"),
        ("\u041e\u0442\u0432\u0435\u0442: 42 \u044f\u0431\u043b\u043e\u043a\u0430\n3 \u0448\u0430\u0433\u0430", "42"),
        ("\u041e\u0442\u0432\u0435\u0442 \u2014 42. 3 \u0448\u0430\u0433\u0430", "42"),
        ("\u7b54\u6848\u662f42\u3002\u4e00\u51713\u6b65\u3002", "42"),
        ("\u6700\u7ec8\u7b54\u6848\uff1a**42**\n3\u6b65", "42"),
        ("\u7b54\u3048\u306f42\u3067\u3059\u30023\u6bb5\u968e\u3002", "42"),
        ("\u7b54\u3048\uff1a42\u500b\n3", "42"),
    ],
)
def test_markdown_and_languages(response: str, text: str) -> None:
    assert found(response, Kind.NUMBER) == (text, "final_answer")


@pytest.mark.parametrize(
    "number",
    [
        "1.234,56",
        "1\u00a0234,56",
        "1\u202f234,56",
        "1 234,56",
        "1'234.56",
        "1\u2019234.56",
        "1.234.567",
        "12,34,567.5",
        "3,14",
        "\u0661\u0662\u0663",
        "\u0967\u0968\u0969",
        "\uff11\uff12",
        "1{,}234",
        "1\\,234",
        "3 \\times 10^5",
        "3\u00d710\u2075",
        "6.02 \\cdot 10^{23}",
        "1.5e-7",
        "3 1/2",
        "3\\frac{1}{2}",
        "15\\%",
        "15 %",
        "-1 234",
    ],
)
def test_a_number_is_never_cut(number: str) -> None:
    for before, after in (("We get ", "."), ("in 7 steps, ", " in all"), ("= ", "\n"), ("also 3 und ", " Euro.")):
        response = before + number + after
        extraction = locate(response, kind=Kind.NUMBER)
        assert extraction is not None
        assert response[extraction.start : extraction.end] == number


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("it is between 1 and 2", "between 1 and 2"),
        ("from 10 to 200", "200"),
        ("with 3, 200", "200"),
        ("1 23", "23"),
        ("in 2024 300 came", "300"),
        ("so it is 7, 8 or 9", "8 or 9"),
        ("so 2\\sqrt{3}", "2\\sqrt{3}"),
        ("so \\frac{\\pi}{4}", "\\frac{\\pi}{4}"),
        ("so \\sqrt{16}", "\\sqrt{16}"),
        ("so $5\\pi$.", "5\\pi"),
        ("so pi/4", "pi/4"),
        ("so 5 million", "5 million"),
        ("so 3^2", "3^2"),
        ("so 5x", "5x"),
        ("it is not 5", "not 5"),
        ("so x > 5.", "x > 5"),
        ("so x>5.", "x>5"),
        ("it is at least 5", "at least 5"),
        ("so we compute 40 + 2", "40 + 2"),
        ("so 12 - 4 = 8", "8"),
        ("It is 7.\n\nStep 2: the sum is unclear", "7"),
        ("It is 7.\n2. The sum is unclear", "7"),
        ("It is 7. Is there an 8?", "7"),
        ("We get\n\n42.\n", "42"),
        ("> 42", "42"),
        ("12 -> 42", "42"),
        ("<b>42</b>", "42"),
        ("<<6*7=42>>42", "42"),
        ("**Solution:** 42", "42"),
        ("* 42", "42"),
        ("**Total** - 42", "42"),
        ("it is 42<|im_end|>", "42"),
    ],
)
def test_numbers_are_neither_glued_nor_torn_out(response: str, number: str) -> None:
    assert found(response, Kind.NUMBER) == (number, "number")


@pytest.mark.parametrize(
    ("response", "text", "how"),
    [
        ("**Answer:** B", "B", "final_answer"),
        ("**Answer: (B) Flash memory**\n\nBecause A is not.", "(B) Flash memory", "final_answer"),
        ("### Final Answer\n\n**B**", "B", "final_answer"),
        ("The correct option is B. A is not.", "B", "final_answer"),
        ("The answer is option B.\nA is not.", "B", "final_answer"),
        ("Answer: B \u2014 Flash memory, as (A) is not.", "B", "final_answer"),
        ("The correct answer is:\n\n**B) Flash memory**", "B) Flash memory", "final_answer"),
        ("The answer is **B**: Flash memory.", "B: Flash memory", "final_answer"),
        ("Die richtige Antwort ist B, weil A falsch ist.", "B", "final_answer"),
        ("La r\u00e9ponse correcte est (B).", "(B)", "final_answer"),
        ("La respuesta correcta es la opci\u00f3n B.", "B", "final_answer"),
        ("\u7b54\u6848\u662fB\u3002", "B", "final_answer"),
        ("\u7b54\u6848\uff1aB\uff0c\u56e0\u4e3aA\u4e0d\u5bf9", "B", "final_answer"),
        ("\u56e0\u6b64\u9009B\u3002", "B", "final_answer"),
        ("\u7b54\u3048\u306fB\u3067\u3059\u3002", "B", "final_answer"),
        ("\u041e\u0442\u0432\u0435\u0442: B", "B", "final_answer"),
        ("A is too slow.\n> **B**", "B", "letter"),
        ("A is too slow.\n- (B)", "(B)", "letter"),
        ("A is too slow.\n### B", "B", "letter"),
        ("<think>(A)? No.</think>B", "B", "letter"),
        ("<answer>B</answer>", "B", "tag"),
        ("<answer>Flash memory</answer>", "Flash memory", "tag"),
        ("<answer>\nB. Flash memory\n</answer>", "B. Flash memory", "tag"),
        ("\\boxed{A} or \\boxed{B}", "A or B", "boxed"),
        ("\\boxed{option B}", "B", "boxed"),
        ("B is the correct answer, as (A) is too slow.\nThat is all.", "B", "letter"),
        ("**B. Flash memory** is correct. It is the correct one.\nThus B is correct.", "B", "letter"),
        ("A is slow, so I choose B.", "B", "letter"),
        ("(B)\n\nExplanation: A and C are slow.", "(B)", "letter"),
        ("B. Flash memory\n\nExplanation: A and C are slow.", "B. Flash memory", "letter"),
        ("The answer is B<|eot_id|>", "B", "final_answer"),
        ("The answer is B, and I am sure.", "B", "final_answer"),
        ("The answer is B and C.", "B and C", "final_answer"),
        ("The answer is A/B.", "A/B", "final_answer"),
    ],
)
def test_choices(response: str, text: str, how: str) -> None:
    assert found(response, Kind.CHOICE, OPTIONS) == (text, how)


@pytest.mark.parametrize(
    "response",
    [
        "Option A is not right.",
        "So it cannot be (B).",
        "I would rule out option C",
        "The answer is not B.",
        "- A. FIFO memory\n- B. Flash memory",
        "A. FIFO memory\nB. Flash memory\nI do not know.",
        "These are all the answers:\n\nA. FIFO memory\nB. Flash memory\nI do not know.",
        "Answer:\nA. FIFO memory\nB. Flash memory\nC. LIFO memory\nI do not know.",
        "Is it true that B is the correct answer?",
        "The answer is a kind of memory.",
        "The answer is A good one.",
        "<think>(A)",
        "<think>option B it is",
        "\u9009\u9879",
        "Die Antwort ist Ansichtssache.",
    ],
)
def test_no_guessed_letter(response: str) -> None:
    assert found(response, Kind.CHOICE, OPTIONS) is None


@pytest.mark.parametrize(
    ("response", "kind", "text", "how"),
    [
        (r"The answer is $(3, \frac{\pi}{2})$.", Kind.TUPLE, r"(3, \frac{\pi}{2})", "final_answer"),
        (r"The answer is \((1, 2)\) because x is 1.", Kind.TUPLE, "(1, 2)", "final_answer"),
        (r"The answers are $1$ and $2$.", Kind.SET, "1 and 2", "final_answer"),
        (r"\boxed{1} or \boxed{2}", Kind.SET, "1 or 2", "boxed"),
        (r"$\boxed{1}$, $x = \boxed{2}$", Kind.SET, "1, x = 2", "boxed"),
        ("\\boxed{2}\n\nso \\boxed{2}", Kind.SET, "2", "boxed"),
        (r"The answer is $y = 2x + 1$ for this line.", Kind.EQUATION, "y = 2x + 1", "final_answer"),
        ("Answer:\n$$\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}$$", Kind.MATRIX, None, "final_answer"),
        ("The answer is yes, because it fits.", Kind.BOOLEAN, "yes", "final_answer"),
        ("Hence the point is $(3,4)$.", Kind.TUPLE, "(3,4)", "alone"),
        ("We get\n\n(3, 4)\n", Kind.TUPLE, "(3, 4)", "alone"),
        ("Answer: True. It fits.", Kind.BOOLEAN, "True", "final_answer"),
        ("The answer is Paris because it is the capital.", Kind.TEXT, "Paris", "final_answer"),
        ("<think>London? No.</think>\n\nParis", Kind.TEXT, "Paris", "alone"),
        ("New York City.", Kind.TEXT, "New York City", "alone"),
    ],
)
def test_other_kinds_keep_the_whole_answer(response: str, kind: Kind, text: str | None, how: str) -> None:
    result = found(response, kind)
    assert result is not None
    assert result[1] == how
    if text is not None:
        assert result[0] == text
    else:
        assert result[0].startswith("\\begin{pmatrix}")
        assert result[0].endswith("\\end{pmatrix}")


@pytest.mark.parametrize("response", ["I do not know it.", "First line\nParis", "It was a long day, and I could not"])
def test_prose_is_no_text_answer(response: str) -> None:
    assert found(response, Kind.TEXT) is None


def test_find_box() -> None:
    text = r"\boxed{1} and \boxed{ \frac{1}{2} } but \boxed{3"
    span = find_box(text)
    assert span is not None
    assert text[slice(*span)] == r" \frac{1}{2} "
    assert find_box("no box, \\boxed{}") is None


@pytest.mark.parametrize(
    ("response", "survives"),
    [
        ("The answer is 4", False),
        ("The answer is 4.", True),
        ("#### 4", False),
        ("#### 4\n", True),
        ("<answer>4", False),
        ("\\boxed{4}", True),
        ("so 4 and then", False),
    ],
)
def test_what_counts_in_a_cut_response(response: str, survives: bool) -> None:
    extraction = locate(response, kind=Kind.NUMBER)
    assert extraction is not None
    assert extraction.survives_cut(response) == survives
    letter = locate("I take option B", kind=Kind.CHOICE, options=OPTIONS)
    assert letter is not None
    assert letter.survives_cut("I take option B")
