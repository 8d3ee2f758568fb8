"""Classify texts on a Triton server. An example that needs nothing of compress:

    pip install "tritonclient[http]" tokenizers
    python client.py --model classifier "a gripping film" "dull from its first minute"

`tokenizer.json` beside it cuts and pads texts as the model wants them; `labels.txt` names its classes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

# Texts of a request to a model that sets no limit.
UNLIMITED_BATCH = 32
FOLDER = Path(__file__).resolve().parent


def encode(tokenizer: Tokenizer, texts: list[Any]) -> dict[str, NDArray[np.int64]]:
    """Tensors `(texts, tokens)` of texts, or of pairs of texts, under the names of BERT's inputs."""
    encodings = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
    }


def logits(
    server: triton.InferenceServerClient, model: str, tokenizer: Tokenizer, texts: list[Any]
) -> NDArray[np.float64]:
    """Logits `(texts, labels)`, in batches as large as the server takes; it tells its tensors' types."""
    metadata = server.get_model_metadata(model)
    batch_size = server.get_model_config(model)["max_batch_size"] or UNLIMITED_BATCH
    output = metadata["outputs"][0]["name"]
    results = []
    for start in range(0, len(texts), batch_size):
        tensors = encode(tokenizer, texts[start : start + batch_size])
        inputs = []
        for entry in metadata["inputs"]:
            values = tensors[entry["name"]].astype(triton_to_np_dtype(entry["datatype"]))
            inputs.append(triton.InferInput(entry["name"], list(values.shape), entry["datatype"]))
            inputs[-1].set_data_from_numpy(values)
        results.append(server.infer(model, inputs).as_numpy(output))
    return np.concatenate(results).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify texts on a Triton server.")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    parser.add_argument("--pairs", nargs="+", metavar="TEXT", help="second text of each, for pairs of texts")
    parser.add_argument("--model", required=True, help="the model's name on the server")
    parser.add_argument("--url", default="localhost:8000", help="host and port of the server's HTTP endpoint")
    arguments = parser.parse_args()
    if arguments.pairs and len(arguments.pairs) != len(arguments.texts):
        parser.error("--pairs takes as many texts as there are others")
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    labels = (FOLDER / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    texts = list(zip(arguments.texts, arguments.pairs, strict=True)) if arguments.pairs else arguments.texts
    try:
        with triton.InferenceServerClient(arguments.url.removeprefix("http://")) as server:
            scores = logits(server, arguments.model, tokenizer, texts)
    except OSError as error:
        sys.exit(f"{arguments.url}: no Triton server answers: {error}")
    except InferenceServerException as error:
        sys.exit(f"{arguments.url}: {error.message()}")
    if len(labels) == 1:
        # A regression: the answer is the number itself.
        for text, row in zip(arguments.texts, scores, strict=True):
            print(f"{labels[0]}\t{row[0]:.4f}\t{text}")
        return
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for text, row in zip(arguments.texts, probabilities, strict=True):
        print(f"{labels[row.argmax()]}\t{row.max():.4f}\t{text}")


if __name__ == "__main__":
    main()
