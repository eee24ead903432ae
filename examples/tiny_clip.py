"""A CLIP of 32 pixels, taught in seconds to match drawings and captions: for machines that reach no model hub."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from drawings import COLOURS, SHAPES, SIDE, THINGS, Thing, draw
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

#: What it is not shown in training, though each colour and each shape is.
UNSEEN = tuple(THINGS[place] for place in np.random.default_rng(3).permutation(len(THINGS))[:12])


@cache
def trained(steps: int = 400) -> str:
    """The folder of the model, which is trained at the first call."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-clip-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = ["<pad>", "<s>", "</s>", "<unk>", "a", "an", *COLOURS, *SHAPES]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=8, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    grey = {"image_mean": [0.3] * 3, "image_std": [0.3] * 3}
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **grey)
    images.save_pretrained(folder)
    shape: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": len(words), "max_position_embeddings": 8, "pad_token_id": 0, "bos_token_id": 1}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**text, "eos_token_id": 2, "intermediate_size": 128, **shape},
            vision_config={"image_size": SIDE, "patch_size": 8, "intermediate_size": 128, **shape},
            projection_dim=32,
        )
    )
    with torch.no_grad():  # as initialised for models of a thousand times the size, signals hardly pass
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "layers" in name:
                torch.nn.init.xavier_uniform_(parameter)
    _teach(model, tokenizer, images, [thing for thing in THINGS if thing not in UNSEEN], steps)
    transformers.utils.logging.disable_progress_bar()  # it takes no second
    model.save_pretrained(folder)
    return str(folder)


def _teach(model: Any, tokenizer: Any, images: Any, things: list[Thing], steps: int, drawn: int = 64) -> None:
    rng = np.random.default_rng(0)
    pixels = torch.stack(
        [images([draw(thing, rng) for _ in range(drawn)], return_tensors="pt")["pixel_values"] for thing in things]
    )
    tokens = torch.tensor([tokenizer.encode(thing.caption).ids for thing in things])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.15)
    model.train()
    for _ in range(steps):
        takes = torch.from_numpy(rng.integers(0, drawn, len(things)))
        loss = model(input_ids=tokens, pixel_values=pixels[torch.arange(len(things)), takes], return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
