"""Small encoders of each family: a tokenizer of the family's kind, random weights of two blocks."""

import json
from dataclasses import dataclass, field

import torch

PIECES = 1500
LENGTH = 32
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


@dataclass(frozen=True)
class Family:
    """What is needed to make models of a family.

    Attributes:
        tokenizer: name of its class in `tokenizer_config.json`.
        kind: "bpe", "unigram" or "wordpiece".
        special: tokens before the pieces, in the order of their ids.
        names: special tokens by name.
        config: keys of the configuration beside `SIZES`, which have these names or are left out.
    """

    tokenizer: str
    kind: str
    special: tuple[str, ...]
    names: dict[str, str]
    config: dict[str, object] = field(default_factory=dict)


ANGLES = {
    "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>",
    "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
BRACKETS = {
    "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}  # fmt: skip
# Positions are counted from 2.
COUNTED = {**SIZES, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1, "pad_token_id": 1}
FAMILIES = {
    "roberta": Family(
        "RobertaTokenizer", "bpe", ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), ANGLES,
        {**COUNTED, "bos_token_id": 0, "eos_token_id": 2},
    ),
    "xlm-roberta": Family(
        "XLMRobertaTokenizer", "unigram", ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), ANGLES,
        {**COUNTED, "bos_token_id": 0, "eos_token_id": 2},
    ),
    "electra": Family(
        "ElectraTokenizer", "wordpiece", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), BRACKETS,
        {**SIZES, "embedding_size": 32, "max_position_embeddings": LENGTH},
    ),
    "distilbert": Family(
        "DistilBertTokenizer", "wordpiece", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), BRACKETS,
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": LENGTH},
    ),
    "mpnet": Family(
        "MPNetTokenizer", "wordpiece", ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"),
        {**ANGLES, "unk_token": "[UNK]"}, {**SIZES, "max_position_embeddings": LENGTH + 2},
    ),
    "modernbert": Family(
        "PreTrainedTokenizerFast", "bpe", ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"), BRACKETS,
        {
            **SIZES, "max_position_embeddings": LENGTH, "local_attention": 8, "global_attn_every_n_layers": 2,
            "pad_token_id": 3, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
        },
    ),
    "deberta-v2": Family(
        "DebertaV2Tokenizer", "unigram", ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), BRACKETS,
        {
            **SIZES, "embedding_size": 48, "max_position_embeddings": LENGTH, "type_vocab_size": 0,
            "position_biased_input": False, "relative_attention": True, "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "norm_rel_ebd": "layer_norm",
        },
    ),
    "camembert": Family(
        "CamembertTokenizer", "unigram",
        ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"), ANGLES,
        {**COUNTED, "bos_token_id": 5, "eos_token_id": 6},
    ),
}  # fmt: skip


def train_tokenizer(family, texts):
    """A tokenizer of the tokenizers library, as those of the family's public models are, trained on texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    first, last = family.names["cls_token"], family.names["sep_token"]
    places = {token: place for place, token in enumerate(family.special)}
    options = {"vocab_size": PIECES, "special_tokens": list(family.special), "show_progress": False}
    if family.kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
        processor = processors.RobertaProcessing((last, places[last]), (first, places[first]))
        if first == "[CLS]":
            tokenizer.normalizer = normalizers.NFC()
            processor = processors.TemplateProcessing(
                single=f"{first} $A {last}",
                pair=f"{first} $A {last} $B {last}",
                special_tokens=[(token, places[token]) for token in (first, last)],
            )
    elif family.kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token=family.names["unk_token"], **options)
        pair = f"{first} $A {last} $B:1 {last}:1"
        processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            pair=pair if first == "[CLS]" else f"{first} $A {last} {last} $B {last}",
            special_tokens=[(token, places[token]) for token in (first, last)],
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token=family.names["unk_token"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
        processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            pair=f"{first} $A {last} $B:1 {last}:1",
            special_tokens=[(token, places[token]) for token in (first, last)],
        )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processor
    return tokenizer


def write_encoder(model_type, texts, folder):
    """Write an encoder of random weights and its tokenizer, as public checkpoints have them."""
    from transformers import AutoConfig, AutoModel

    family = FAMILIES[model_type]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(family, texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {"tokenizer_class": family.tokenizer, "model_max_length": LENGTH, **family.names}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    # Wide enough to be trained in seconds.
    options = {"vocab_size": tokenizer.get_vocab_size(), "initializer_range": 0.05}
    config = AutoConfig.for_model(model_type, **options, **family.config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
