"""Texts whose answers an artifact carries: made ones, so that no text of a user leaves with it, or given."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.data.texts import TextData, load_text_data
from compressor.models.checks import pair_problems, tokenizer_facts
from compressor.models.classifier import Classifier, check_pairs
from compressor.options import ColumnsConfig

MOST_GIVEN = 32
# What tokenizers treat in ways of their own; nothing here is from a data set.
MADE = (
    "A quiet film, and a good one.",
    "THE SAME IN CAPITALS, AND LOUDER!",
    "MiXeD cAsE iS rEaD tOo.",
    "Crème brûlée, naïve façade, Ångström, Łódź, İstanbul, straße.",
    "cafe\u0301 a\u0308 n\u0303 with combining accents",
    "東京の電車は速い。",
    "中文句子没有空格，也能读。",
    "한국어 문장입니다.",
    "Привет, мир! Это проверка.",
    "مرحبا بالعالم, שלום עולם",
    "नमस्ते दुनिया, สวัสดีชาวโลก",
    "👍 😀 🇫🇷 👩\u200d👩\u200d👧 ❤️",
    "See https://example.org/a/b?c=d&e=1#f or write to someone@example.org.",
    "In 2024, 3.14159 of 1,000,000 cost $5.99 (12 %), +49-30-1234567.",
    "don't, can't, it's — “quoted” … ‘single’ – dash",
    '{"json": [1, 2]} <b>html</b> `code` snake_case CamelCase',
    "",
    " ",
    "\t\n  two   spaces \r\n and lines",
    "\u0001\ufffd\u200b\ue000 control, zero width, private use",
    "[CLS] [SEP] [MASK] [PAD] <s> </s> <unk>",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 120,
)
MADE_PAIRS = (
    ("Is it a good film?", "It is, and it is longer than the question."),
    ("", "The first of the two is empty."),
)
# Has at least as many tokens as words.
SENTENCE = "One sentence that is written again until no model can read all of it."


@dataclass(frozen=True)
class ReferenceTexts:
    """Texts, and pairs of texts, whose answers are recorded.

    Attributes:
        source: `made`, or `given` by the user.
    """

    source: str
    texts: list[str]
    pairs: list[tuple[str, str]]


def reference_texts(classifier: Classifier, source: str | None, columns: ColumnsConfig) -> ReferenceTexts:
    """Return the first texts of a source, or made ones; pairs only if the model takes them.

    Args:
        source: file or hub id of texts; None makes them.

    Raises:
        UserError: a source that cannot be read, or of pairs that the model does not take.
    """
    if source is not None:
        names = classifier.label_names
        data = load_text_data(source, columns, "reference", label_names=names, needs_labels=False)
        check_pairs(source, classifier.model.config, classifier.tokenizer, data.pairs is not None)
        return _given(data.select(range(min(MOST_GIVEN, len(data)))))
    long = " ".join([SENTENCE] * (1 + columns.max_length // len(SENTENCE.split())))
    facts = tokenizer_facts(classifier.tokenizer)
    takes_pairs = not pair_problems(classifier.model.config.to_dict(), facts)
    pairs = [*MADE_PAIRS, ("A short one.", long)] if takes_pairs else []
    return ReferenceTexts("made", [*MADE, long], pairs)


def _given(data: TextData) -> ReferenceTexts:
    if data.pairs is None:
        return ReferenceTexts("given", data.texts, [])
    return ReferenceTexts("given", [], list(zip(data.texts, data.pairs, strict=True)))
