"""Tiny random transformers as folders, each with a tokeniser that behaves like its big brother's. No test in here.

    folder = tiny.build("llama", tmp_path / "model")

bert, distilbert   [CLS] text [SEP], word pieces, lower case; reward read off the first token
roberta            <s> text </s>, bytes; positions start at 2
modernbert         [CLS] text [SEP], bytes; turning (rotary) positions
llama              <s> text, SentencePiece style with a leading "▁"; no padding token, no spare token (Llama 2)
llama3             <|begin_of_text|> text, bytes; no padding token, but reserved tokens to spare
qwen2              text, bytes; ends with <|im_end|>, pads with <|endoftext|>; no start token
gpt2               text, bytes; one token for start, end and unknown; no padding token
t5                 text </s>, bytes; encoder and decoder, the reward read off the decoder's </s>
bart               <s> text </s>, bytes; the same
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

ENCODERS = ("bert", "distilbert", "roberta", "modernbert")
DECODERS = ("llama", "llama3", "qwen2", "gpt2")
BOTH = ("t5", "bart")  # an encoder and a decoder
KINDS = (*ENCODERS, *DECODERS, *BOTH)

GOOD = ["clear", "exact", "kind", "warm", "helpful", "step", "detail", "reason", "answer", "care"]
BAD = ["vague", "rude", "off", "cold", "random", "lazy", "guess", "mess", "wrong", "dull"]
PLAIN = ["the", "a", "of", "to", "and", "in", "is", "it", "on", "for", "with", "as", "at", "by", "from", "what", "how"]
TEXT = " ".join((GOOD + PLAIN + BAD) * 3) + " Why? Because; 1 2 3.\n\nNaïve café: 你好"


def build(
    kind: str,
    folder: Path,
    *,
    layers: int = 2,
    hidden: int = 32,
    head: bool = False,
    labels: int = 1,
    with_pad: bool = True,
    positions: int = 160,
    seed: int = 0,
) -> str:
    """Write model.safetensors, config and tokeniser into `folder`; returns it as a string.

    head: with a reward head of `labels` outputs; without: the body alone (encoders) or with the head that writes text
    (decoders). with_pad: False takes the padding token away from kinds that have one. positions: tokens it can read.
    """
    import torch

    torch.manual_seed(seed)
    tokenizer = tokeniser(kind, with_pad)
    model = _model(kind, tokenizer, layers, hidden, head, labels, positions)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tokeniser(kind: str, with_pad: bool = True) -> Any:
    import transformers as t

    pad = {} if with_pad else {"pad_token": None}
    if kind in ("bert", "distilbert"):
        return t.BertTokenizer(vocab=_word_pieces(), **pad)
    if kind == "roberta":
        vocab, merges = _bytes("<s>", "<pad>", "</s>", "<unk>", "<mask>")
        return t.RobertaTokenizer(vocab=vocab, merges=merges, **pad)
    if kind == "llama":
        vocab, merges = _sentence_piece()
        return t.LlamaTokenizer(vocab=vocab, merges=merges, add_prefix_space=True, add_bos_token=True)
    if kind == "qwen2":
        vocab, merges = _bytes("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        made = t.Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>")
        if not with_pad:
            made.pad_token = None
        return made
    if kind == "gpt2":
        return t.GPT2Tokenizer(*_bytes("<|endoftext|>"))
    if kind == "modernbert":
        return _plain_bytes(
            ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"),
            "[CLS] $A [SEP]",
            {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
            | ({"pad_token": "[PAD]"} if with_pad else {}),
        )
    if kind == "llama3":
        return _plain_bytes(
            ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
            "<|begin_of_text|> $A",
            {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        )
    if kind in BOTH:
        specials = ("<s>", "<pad>", "</s>", "<unk>") if kind == "bart" else ("<pad>", "</s>", "<unk>")
        named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        named |= {"bos_token": "<s>"} if kind == "bart" else {}
        if not with_pad:
            del named["pad_token"]
        return _plain_bytes(specials, "<s> $A </s>" if kind == "bart" else "$A </s>", named)
    raise ValueError(f"no kind {kind}")


def _model(kind: str, tokenizer: Any, layers: int, hidden: int, head: bool, labels: int, positions: int) -> Any:
    import transformers as t

    pad, start, end = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id
    facts: dict[str, Any] = {"vocab_size": len(tokenizer), "num_labels": labels, "initializer_range": 0.2}
    if kind in ("gpt2", "distilbert"):  # words of their own for the same things
        facts |= {"n_layer": layers, "n_head": 2, "n_positions": positions, "n_embd": hidden}
        if kind == "distilbert":
            facts |= {"n_layers": layers, "n_heads": 2, "dim": hidden, "hidden_dim": 2 * hidden}
            facts["max_position_embeddings"] = positions
            config = t.DistilBertConfig(**facts, pad_token_id=pad or 0)
        else:
            config = t.GPT2Config(**facts, bos_token_id=start, eos_token_id=end, pad_token_id=pad)
    elif kind in BOTH:
        facts |= {"d_model": hidden, "pad_token_id": pad, "eos_token_id": end, "bos_token_id": start}
        if kind == "t5":
            facts |= {"d_kv": hidden // 2, "d_ff": 2 * hidden, "num_layers": layers, "num_heads": 2}
            config = t.T5Config(**facts, decoder_start_token_id=0)
        else:
            for part in ("encoder", "decoder"):
                facts |= {f"{part}_layers": layers, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 2 * hidden}
            config = t.BartConfig(
                **facts,
                init_std=0.2,
                max_position_embeddings=positions,
                decoder_start_token_id=end,
                forced_eos_token_id=None,
            )
    else:
        facts |= {"num_hidden_layers": layers, "num_attention_heads": 2, "hidden_size": hidden}
        facts |= {"intermediate_size": 2 * hidden, "max_position_embeddings": positions}
        if kind == "bert":
            config = t.BertConfig(**facts, pad_token_id=pad or 0)
        elif kind == "roberta":
            facts["max_position_embeddings"] = positions + 2
            config = t.RobertaConfig(**facts, pad_token_id=1, bos_token_id=0, eos_token_id=2, type_vocab_size=1)
        elif kind == "modernbert":
            ids = {"pad_token_id": pad or 0, "cls_token_id": 0, "sep_token_id": 1, "bos_token_id": 0, "eos_token_id": 1}
            config = t.ModernBertConfig(**facts, **ids, local_attention=32, global_attn_every_n_layers=2)
        elif kind in ("llama", "llama3"):
            ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
            config = t.LlamaConfig(**facts, **ids, num_key_value_heads=1)
        elif kind == "qwen2":
            config = t.Qwen2Config(
                **facts, num_key_value_heads=1, eos_token_id=end, pad_token_id=pad, bos_token_id=None
            )
        else:
            raise ValueError(f"no kind {kind}")
    if head:
        return t.AutoModelForSequenceClassification.from_config(config)
    auto = t.AutoModelForCausalLM if kind in DECODERS else t.AutoModelForSeq2SeqLM if kind in BOTH else t.AutoModel
    return auto.from_config(config)


@cache
def _word_pieces() -> dict[str, int]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *(f"##{letter}" for letter in letters), *".,;:!?'\"-()[]<>|/_*+=你好"]
    endings = ["##s", "##ing", "##er", "##ly", "##ful"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *endings, *GOOD, *BAD, *PLAIN]
    return {word: place for place, word in enumerate(dict.fromkeys(words))}


@cache
def _merged(first: tuple[str, ...], bytewise: bool, merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges learnt from TEXT, `first` at the front."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet() if bytewise else []
    core.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if bytewise else pre_tokenizers.Metaspace(split=True)
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(first) + len(alphabet) + (0 if bytewise else 40) + merges,
        special_tokens=list(first),
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    core.train_from_iterator([TEXT], trainer)
    found = json.loads(core.to_str())["model"]
    return found["vocab"], [tuple(merge) for merge in found["merges"]]


def _bytes(*first: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab, merges = _merged(first, True, 80)
    return dict(vocab), list(merges)


def _sentence_piece() -> tuple[dict[str, int], list[tuple[str, str]]]:
    first = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
    vocab, merges = _merged(first, False, 80)
    return dict(vocab), list(merges)


def _plain_bytes(specials: tuple[str, ...], template: str, named: dict[str, str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab, merges = _bytes(*specials)
    core = Tokenizer(models.BPE(vocab, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    used = [(token, vocab[token]) for token in specials if token in template]
    core.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)
