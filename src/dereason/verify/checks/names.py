"""The names of checks: the closed list that data may name, and how a function of the user's is named.

A data file may name a built-in check and nothing else: whoever writes data must not be able to have code run. A recipe
and a command line, which the user writes, may name a function besides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dereason.errors import DereasonError

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

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Check:
    """What decides whether an answer is right."""

    name: str
    """``reasoning_gym:FAMILY``, or ``package.module:function``."""
    parameters: tuple[str, ...] = ("answer",)
    """What a function wants to know, by the names of its parameters."""

    @property
    def whole(self) -> bool:
        """Whether it reads the whole response: no answer is looked for in it."""
        return "answer" not in self.parameters

    @property
    def family(self) -> str | None:
        """The reasoning-gym family of a built-in check."""
        before, _, family = self.name.partition(":")
        return family if before == GYM else None


def built_in(name: object, where: str) -> Check | None:
    """The check that data name; None where that is equality with the reference.

    Args:
        name: what stands in the data.
        where: file and row, for messages.

    Raises:
        DereasonError: it is none of the closed list.
    """
    before, _, family = name.partition(":") if isinstance(name, str) else ("", "", "")
    if before != GYM or family not in SCORED | OURS | EQUAL:
        shown = repr(name)
        function = isinstance(name, str) and _FUNCTION.fullmatch(name) and before != GYM
        raise DereasonError(
            f"{where}: 'answer_check' is {shown if len(shown) <= 60 else shown[:59] + '…'}, "
            + ("a function, which data may not name" if function else "no built-in check"),
            "name a function in the recipe (verifier.answer_check) or with --set, and take the field out of the data"
            if function
            else f"give {GYM}:FAMILY with a family of reasoning-gym, or name that field otherwise",
        )
    return None if family in EQUAL else Check(f"{GYM}:{family}")


def is_function(name: str) -> bool:
    """Whether a name has the form of a function's, and is none of the built-in checks."""
    return bool(_FUNCTION.fullmatch(name)) and not name.startswith(f"{GYM}:")


def is_check(name: str) -> bool:
    """Whether a recipe or a command line may name this: a function, or a built-in check."""
    before, _, family = name.partition(":")
    return family in SCORED | OURS | EQUAL if before == GYM else is_function(name)


def of_family(family: str) -> str | None:
    """The name of a family's check, where it has one that is not equality."""
    return f"{GYM}:{family}" if family in SCORED | OURS else None
