"""reasoning-gym's families: which of them have a check of their own, and what is taken from an entry.

A check decides in place of equality with the reference where there are many right answers, or where the same answer in
another form is no answer (a fraction that is not in lowest terms). The checks themselves are
:mod:`dereason.verify.checks.gym`.
"""

from __future__ import annotations

import json
from typing import Any

GYM = "reasoning_gym"
"""What stands before the family's name in the name of a built-in check."""


def _families(names: str) -> frozenset[str]:
    return frozenset(names.split())


SCORED = _families(
    "advanced_geometry boxnet cryptarithm fraction_simplification graph_color group_anagrams intermediate_integration"
    " jugs kakurasu knight_swap knights_knaves number_format palindrome_generation palindrome_partitioning"
    " polynomial_multiplication power_function prime_factorization propositional_logic quantum_lock rubiks_cube"
    " rush_hour shortest_path simple_integration sokoban time_intervals tower_of_hanoi word_ladder word_sorting"
)
"""Families whose own scorer decides, on text that has passed the family's grammar; correct is a score of 1.0."""

OURS = _families("bitwise_arithmetic codeio countdown n_queens number_sorting puzzle24")
"""Families with a check of ours: reasoning-gym's runs the text, or takes wrong answers for right ones."""

EQUAL = _families(
    # the scorer of the base class, which is equality of texts
    "acre aiw arc_1d base_conversion basic_arithmetic bf binary_alternation caesar_cipher count_bits count_primes"
    " course_schedule gcd isomorphic_strings largest_island lcm leg_counting letter_counting list_functions"
    " mahjong_puzzle maze modulo_grid number_filtering number_sequence ransom_note rotate_matrix rotten_oranges"
    " simple_equations simple_geometry string_manipulation string_splitting string_synthesis syllogism"
    " word_sequence_reversal"
    # one right answer, and a scorer that adds spelling, parts of a point, or wrong answers
    " ab arc_agi binary_matrix calendar_arithmetic chain_sum circuit_logic coin_flip color_cube_rotation"
    " complex_arithmetic decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships figlet_font"
    " futoshiki game_of_life game_of_life_halting gsm_symbolic letter_jumble manipulate_matrix mini_sudoku"
    " needle_haystack path_star polynomial_equations pool_matrix products rearc rectangle_count self_reference"
    " sentence_reordering spell_backward spiral_matrix string_insertion sudoku survo tsumego zebra_puzzles"
)
"""Families with one right answer each, which equality with the reference decides as for any other problem."""

COMPOSITE = "composite"
"""The family that is made of others; each of its problems names its own."""

_EXAMPLES = ("possible_answer", "example_answer", "example_correct_answer")
"""Where the metadata of families without a reference have an answer."""


def arguments(family: str, given: dict[str, Any]) -> dict[str, Any]:
    """A family's arguments, as it takes them: `composite` wants objects where a recipe has mappings."""
    if family != COMPOSITE:
        return given
    from reasoning_gym.composite import DatasetSpec

    return given | {"datasets": [DatasetSpec(**one) for one in given.get("datasets", ())]}


def check_of(entry: dict[str, Any], family: str) -> str | None:
    """The name of the check of an entry, None where it is equality with the reference."""
    if family == COMPOSITE:
        family = str(entry["metadata"]["source_dataset"])
    return f"{GYM}:{family}" if family in SCORED | OURS else None


def reference_of(entry: dict[str, Any], check: str | None) -> str:
    """The reference of an entry; where it has none, an example, or words that say so."""
    answer = entry["answer"]
    if answer is None:
        found = [entry["metadata"][name] for name in _EXAMPLES if name in entry["metadata"]]
        answer = found[0] if found else f"any that {check} accepts"
    return answer if isinstance(answer, str) else json.dumps(answer)
