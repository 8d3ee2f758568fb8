"""Reports made by hand, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from compressor.intervals import paired_difference, wilson_interval
from compressor.validation.measure.answers import pack_bits, unpack_bits
from compressor.validation.schema import (
    AgainstFigures,
    AnswersAgainstFigures,
    Appendix,
    AttackFigures,
    AttackRow,
    DifferenceFigures,
    FlopsFigures,
    FootprintFigures,
    GateResult,
    GateStatus,
    IntervalFigures,
    InvarianceFigures,
    LatencyFigures,
    LayerRow,
    Report,
    RobustnessFigures,
    SizeFigures,
    SliceFigures,
    VariantFigures,
    Variants,
    WordBudgetDropFigures,
    WordBudgetFigures,
)

SHAPES = [(1, 32), (1, 128), (8, 32), (8, 128)]
AGAINST = AgainstFigures.model_validate(
    {
        "accuracy_under_attack_drop": {
            "difference": 0.05,
            "interval": {"low": -0.01, "high": 0.11},
            "p_value": 0.18,
            "only_first": 8,
            "only_second": 3,
            "examples": 100,
        },
        "transfer": {"texts": 40, "fooled": 30, "rate": 0.75, "interval": {"low": 0.6, "high": 0.86}},
    }
)


def interval_of(share: float, examples: int) -> IntervalFigures:
    """Wilson's, of a share that is a whole number of the examples."""
    return IntervalFigures(**asdict(wilson_interval(round(share * examples), examples)))


def robustness(share: float, rate: float | None = 0.5, examples: int = 100) -> RobustnessFigures:
    return RobustnessFigures(
        attack="deepwordbug",
        accuracy=0.92,
        accuracy_under_attack=share,
        attack_success_rate=rate,
        queries_per_example=41.27,
        examples=examples,
        accuracy_interval=interval_of(0.92, examples),
        accuracy_under_attack_interval=interval_of(share, examples),
        attack_success_rate_interval=None if rate is None else interval_of(rate, examples),
    )


def under_several(
    shares: Mapping[str, float], under_all: float, drops: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Changes of `variant` for one that was attacked by several; drops for one that is held against dense.

    Args:
        shares: accuracy under each attack by its name, and `drops` from the dense model's likewise.
    """

    def against(drop: float) -> AgainstFigures:
        lost = round(drop * 100)
        difference = paired_difference([True] * lost + [False] * (100 - lost), [False] * 100)
        figures = DifferenceFigures.model_validate(asdict(difference))
        return AGAINST.model_copy(update={"accuracy_under_attack_drop": figures})

    return {
        "robustness": robustness(under_all).model_copy(update={"attack": ",".join(shares)}),
        "against_dense": None if drops is None else against(drops["all"]),
        "attacks": [
            AttackFigures(
                robustness=robustness(share).model_copy(update={"attack": name}),
                against_dense=None if drops is None else against(drops[name]),
            )
            for name, share in shares.items()
        ],
    }


def within_budgets(*held: tuple[float, float], examples: int = 100) -> list[WordBudgetFigures]:
    """What is left within budgets of words, given as pairs of a budget and a share."""
    return [
        WordBudgetFigures(
            max_words_changed=budget, accuracy_under_attack=share, interval=interval_of(share, examples)
        )
        for budget, share in held
    ]


def dropped_within_budgets(*lost: tuple[float, int], examples: int = 100) -> list[WordBudgetDropFigures]:
    """Drops in which the dense model alone holds out on some examples, and the variant on no other ones."""
    return [
        WordBudgetDropFigures(
            max_words_changed=budget,
            accuracy_under_attack_drop=DifferenceFigures.model_validate(
                asdict(paired_difference([True] * count + [False] * (examples - count), [False] * examples))
            ),
        )
        for budget, count in lost
    ]


def judged(metric: str, bound: str, value: float, status: GateStatus, **changes: Any) -> GateResult:
    """What came of a gate with a plain number."""
    fields = {"place": None, "interval": None, "note": None, "limit": float(bound.split()[1])}
    gate = f"{metric} {bound}"
    return GateResult(gate=gate, metric=metric, bound=bound, value=value, status=status, **(fields | changes))


def right_answers(accuracy: float, examples: int) -> str:
    """Flags of which the first ones are right."""
    return pack_bits(np.arange(examples) < round(accuracy * examples))


def variant(
    path: str,
    accuracy: float = 0.92,
    *,
    examples: int = 100,
    under_attack: float = 0.21,
    speed: float = 1.0,
    dense: VariantFigures | None = None,
    **changes: Any,
) -> VariantFigures:
    """A variant's figures; with `dense`, held against it."""
    right = right_answers(accuracy, examples)
    figures: dict[str, Any] = {
        "path": path,
        "accuracy": accuracy,
        "accuracy_interval": interval_of(accuracy, examples),
        "examples": examples,
        "right": right,
        "task_score": accuracy,
        "task_score_interval": interval_of(accuracy, examples),
        "calibration_error": 0.0312,
        "answers_against_dense": None,
        "slices": [
            SliceFigures(
                by="label",
                name="fresh",
                examples=examples,
                accuracy=accuracy,
                interval=interval_of(accuracy, examples),
                drop=None,
                regression=False,
            )
        ],
        "robustness": robustness(under_attack),
        "against_dense": None,
        "latency": [
            LatencyFigures(
                batch_size=batch,
                sequence_length=length,
                p50_ms=batch * length / 2 / speed,
                p95_ms=batch * length / 1.8 / speed,
                p99_ms=batch * length / 1.7 / speed,
                examples_per_second=2000 * speed / length,
                rounds=20,
                stable=True,
            )
            for batch, length in SHAPES
        ],
        "size_bytes": 437_951_328,
        "size_ratio": 1.0,
        "size_by_part": SizeFigures(
            embeddings=95_352_832, encoder=340_217_856, head=2_368_520, other=12_120, tokenizer=942_000
        ),
        "sparsity": 0.5,
        "flops": FlopsFigures(
            batch_size=1, sequence_length=128, all_weights=22_348_300_288, nonzero_weights=11_475_615_744
        ),
        "footprint": FootprintFigures(
            load_seconds=0.31,
            peak_memory_bytes=1_200_000_000,
            model_memory_bytes=610_000_000,
            batch_size=8,
            sequence_length=128,
        ),
        "invariance": InvarianceFigures(
            examples=128, batch_size=16, shuffles=3, batch_disagreement=0.0, worst_batch_shift=2.4e-6
        ),
    }
    if dense is not None:
        flags = [unpack_bits(text, examples).tolist() for text in (dense.right, right)]
        drop = DifferenceFigures.model_validate(asdict(paired_difference(*flags)))
        figures["against_dense"] = AGAINST
        figures["answers_against_dense"] = AnswersAgainstFigures(
            accuracy_drop=drop,
            label_agreement=0.97,
            label_agreement_interval=interval_of(0.97, examples),
            task_score_drop=drop.difference,
            task_score_drop_interval=drop.interval,
        )
        figures["slices"] = [
            figures["slices"][0].model_copy(update={"drop": drop, "regression": drop.interval.low > 0})
        ]
    return VariantFigures(**(figures | changes))


def make_report(**changes: Any) -> Report:
    dense = variant("runs/dense")
    fields: dict[str, Any] = {
        "verdict": "fail",
        "task_metric": "accuracy",
        "majority_share": 0.6,
        "variants": Variants(
            dense=dense,
            pruned=variant("runs/pruned", dense=dense),
            artifact=variant("runs/artifact", speed=2.0, size_bytes=110_402_117, dense=dense),
        ),
        "gates": [
            judged("accuracy_drop", "<= 0.01", 0.0149, "fail"),
            judged("sparsity", ">= 0.4", 0.5, "pass"),
            judged("size_ratio", "<= 0.3", 0.2521, "pass"),
        ],
        "environment": {
            "device": "cpu",
            "threads": 2,
            "packages": {"torch": "2.9.1", "onnxruntime": "1.23.2"},
            "data": {"source": "a|b.csv", "columns": {"text": "text", "text_pair": None}},
        },
        "seed": 13,
    }
    return Report(**(fields | changes))


def make_appendix() -> Appendix:
    names = ("attention.self.query", "attention.output.dense", "output.dense")
    layers = [
        LayerRow(f"bert.encoder.layer.{block}.{name}", 0.1 * (block + 1), 10.0**-block)
        for block in range(4)
        for name in names
    ]
    layers[1] = LayerRow(layers[1].name, 0.0, None)
    layers[2] = LayerRow(layers[2].name, 0.0, 0.0)
    attack = AttackRow(
        variant="artifact",
        label="<b>positive</b>",
        original="a fine <script>alert(1)</script> film | really",
        perturbed="a fnie <script>alert(1)</script> film | realyl",
        queries=23,
    )
    return Appendix(layers, [attack], {"Parity | PyTorch": "within 3e-5 <on> *256* texts"})


def make_report_of_several() -> Report:
    """A report of two attacks, under which the artifact is less robust than the dense model."""
    dense = variant("runs/dense", **under_several({"pwws": 0.4, "pruthi": 0.6}, 0.35))
    drops = {"pwws": 0.1, "pruthi": 0.02, "all": 0.12}
    artifact = variant(
        "runs/artifact", speed=2.0, dense=dense, **under_several({"pwws": 0.3, "pruthi": 0.58}, 0.23, drops)
    )
    return make_report(variants=Variants(dense=dense, pruned=None, artifact=artifact))
