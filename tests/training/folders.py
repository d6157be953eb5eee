"""Folders of small pretrained models with tokenizers of their own, as their authors would leave them."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from showhow.datasets.examples import draw_block
from showhow.sections.dataset_spec import TRAIN, DatasetSpec
from showhow.tasks import task_named
from showhow.tasks.base import Task
from showhow.tasks.explain import Level

SENTENCES: Task = task_named("modular_sum", {"terms": 2, "below": 12, "modulus": 3, "style": "sentence"})
# Shortened from those of Qwen 2.5 and Llama 3.2, with what is hard in them: a system message of its own, trimmed
# texts, a start token, a date.
CHAT_ML = """\
{%- if messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
OF_LLAMA = """\
{{- bos_token }}
{%- if not tools is none %}{{- raise_exception("no tools here") }}{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def texts() -> list[str]:
    of = DatasetSpec(task=SENTENCES, level=Level.LONG, split=TRAIN, examples=100, seed=9, control_length=Level.LONG)
    return [text for row in draw_block(of, 0, 100)[0] for text in (row.question, row.target)]


def byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    return tokenizer


def causal_folder(folder: Path) -> Path:
    """A GPT-2 of two layers with its byte-level tokenizer, whose padding was added later, as people do."""
    tokenizer = byte_level(["<|endoftext|>"])
    size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["[PAD]"])
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=size, n_embd=48, n_layer=2, n_head=2, initializer_range=0.1)
    return saved(folder, GPT2LMHeadModel(config), tokenizer, {"eos_token": "<|endoftext|>", "pad_token": "[PAD]"})


def seq2seq_folder(folder: Path) -> Path:
    """A T5 of two layers with a tokenizer that, as T5's, reads line breaks as blanks."""
    pad, end, unknown = special = ["<pad>", "</s>", "<unk>"]
    # Whole words before single signs. A trained vocabulary would be another in each process.
    signs = sorted({sign for text in [*texts(), "; ."] for sign in text if not sign.isspace()} | {"▁"})
    words = sorted({"▁" + word for text in texts() for word in text.split()} - set(signs))
    pieces = [(piece, 0.0) for piece in special] + [(sign, -9.0) for sign in signs] + [(word, -1.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    torch.manual_seed(0)
    config = T5Config(vocab_size=128, d_model=48, d_kv=24, d_ff=96, num_layers=2, num_heads=2, decoder_start_token_id=0)
    settings = {"eos_token": end, "pad_token": pad, "unk_token": unknown}
    return saved(folder, T5ForConditionalGeneration(config), tokenizer, settings)


def llama_folder(folder: Path) -> Path:
    """A Llama of two layers with grouped queries, its weights in several files, and a tokenizer that begins texts."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level(special)
    begin = special[0]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=304,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        max_position_embeddings=1024,
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="60KB")
    return chatting(folder, tokenizer, OF_LLAMA, {"bos_token": begin, "eos_token": "<|eot_id|>"})


def qwen_folder(folder: Path) -> Path:
    """A Qwen2 of two layers. Its template ends a turn with another token than the tokenizer's end token."""
    tokenizer = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=304,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    ends = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return chatting(folder, tokenizer, CHAT_ML, ends)


def chatting(folder: Path, tokenizer: Tokenizer, template: str, settings: dict[str, str]) -> Path:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def saved(folder: Path, model: Any, tokenizer: Tokenizer, settings: dict[str, str]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
