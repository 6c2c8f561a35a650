"""Fields of jobs that no command has as a configuration of its own: inputs of evaluations and promotions; operators' programs."""

from __future__ import annotations

from pydantic import Field, field_validator

from zsbir.base.config import Config

MOST_WORDS = 1000
LONGEST_WORD = 100_000
"""Characters of a word, less than systems allow: 131,072 bytes on Linux."""


class EvaluationInputs(Config):
    """What a run is measured on, where that is not its own data set."""

    dataset: str = Field("", description="URI of a Dataset artifact to measure on; none: the run's own")
    unseen_to: tuple[str, ...] = Field((), description="Run artifacts of which what they have seen is left out, too")


class PromotionInputs(Config):
    """What a promotion judges, and how."""

    report: str = Field("", description="URI of the model's Report artifact, as evaluate makes it")
    index: str = Field("", description="URI of an Index artifact of the same run, as index makes it")
    other_reports: tuple[str, ...] = Field((), description="Report artifacts of the same training with other seeds")
    champion_reports: tuple[str, ...] = Field(
        (), description="Report artifacts of the champion, one for each seed; none: those it was promoted by"
    )
    force: bool = Field(False, description="promote even if the comparison says no; needs a reason")
    reason: str = Field("", max_length=500, description="why the promotion is forced; recorded with the version")
    dry_run: bool = Field(False, description="say what would happen, and change nothing")


class CommandFields(Config):
    """A command of an operator's own, which runs in the project's environment."""

    words: tuple[str, ...] = Field(
        (), max_length=MOST_WORDS, description="the program and its arguments, one word each; no shell reads them"
    )
    cwd: str = Field("", description="folder in which it runs, on the node that runs it; none: one that Ray makes")

    @field_validator("words")
    @classmethod
    def _can_be_run(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if any("\0" in word or len(word) > LONGEST_WORD for word in words):
            raise ValueError(f"no word may hold the character 0, or have more than {LONGEST_WORD} characters")
        if words and not words[0].strip():
            raise ValueError("the first word must be a program")
        return words
