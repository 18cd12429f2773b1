"""Models that no one here wrote: laws found and verified, a real training with its identity. No weights are loaded."""

from collections import Counter
from contextlib import suppress

import pytest
import torch
from torch.nn.functional import cross_entropy

from conslaw.models import laws, track
from conslaw.models.completeness import count_diagonal_laws, diagonal_rank

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(3)
TOKENS = torch.randint(12, (4, 8), generator=torch.Generator().manual_seed(0))
TEXT = {"input_ids": TOKENS, "labels": TOKENS}


def define_operators():
    """Torchvision for CUDA does not load its own operators beside a torch without, and transformers imports it too."""
    for operator in ("nms", "qnms"):
        with suppress(RuntimeError):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float limit) -> Tensor")


def vision(name, **options):
    define_operators()
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    return getattr(models, name)(weights=None, num_classes=10, **options)


def language(kind, **options):
    define_operators()
    transformers = pytest.importorskip("transformers")
    configuration, model = {
        "GPT2": (transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "Llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "BERT": (transformers.BertConfig, transformers.BertForMaskedLM),
    }[kind]
    torch.manual_seed(0)
    return model(configuration(vocab_size=12, bos_token_id=0, eos_token_id=0, pad_token_id=None, **options))


def gpt2(**options):
    return language("GPT2", n_embd=8, n_layer=2, n_head=2, n_positions=8, **options)


def llama(**options):
    sizes = {"hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2}
    return language("Llama", **sizes, num_attention_heads=4, num_key_value_heads=2, **options)


def bert(**options):
    sizes = {"hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2}
    return language("BERT", **sizes, max_position_embeddings=8, **options)


def kinds(found):
    return {kind: count for kind, count in Counter(law.kind for law in found).items() if kind != "constant"}


def trained(model, batch, loss_fn, found):
    """Two steps of a real training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with track(model, optimizer, found) as run:
        for _ in range(2):
            optimizer.zero_grad()
            (model(**batch).loss if loss_fn is None else loss_fn(model(batch[0]), batch[1])).backward()
            optimizer.step()
    assert run.steps.tolist() == [0, 1, 2]
    assert run.identity_error < 1e-13
    assert all(numbers.isfinite().all() for numbers in (n[1:] for n in run.numbers))


def test_resnet18():
    model = vision("resnet18")
    found = laws(model, IMAGES, cross_entropy)
    within_blocks = 2 * (64 + 128 + 256 + 512)
    streams = 64 + 128 + 256 + 512  # a channel of a stage has one law across all of its blocks
    assert kinds(found) == {"norm": within_blocks + streams}
    assert {entry.reason for entry in found.rejected} == {"only but for ε = 1e-05 of BatchNorm"}
    assert sum(entry.count for entry in found.rejected) == 4800  # filters
    (stem,) = (law for law in found if law.where.startswith("bn1[0]"))
    assert "layer1.1.conv1.weight[:, 0]" in stem.formula
    trained(model, IMAGES, cross_entropy, found)


def test_vgg11():
    """Its linear layers have 120 million parameters; a narrow one in their place has the same laws."""
    model = vision("vgg11")
    model.classifier[0], model.classifier[3] = torch.nn.Linear(512 * 49, 20), torch.nn.Linear(20, 16)
    model.classifier[6] = torch.nn.Linear(16, 10)
    found = laws(model, IMAGES, cross_entropy)
    unseen = sum(entry.count for entry in found.rejected)
    assert {entry.reason for entry in found.rejected} <= {"no gradient reaches it on this batch"}
    assert sum(kinds(found).values()) + unseen == (64 + 128 + 2 * 256 + 4 * 512) + 20 + 16
    assert unseen < 40
    trained(model, IMAGES, cross_entropy, found)


def test_mobilenet_v3():
    model = vision("mobilenet_v3_small")
    found = laws(model, IMAGES, cross_entropy)
    reasons = {entry.reason for entry in found.rejected}
    assert {"hard swish is not homogeneous", "hard sigmoid is not homogeneous"} <= reasons
    assert not [reason for reason in reasons if "cancel" in reason or "traced" in reason or "rule" in reason]
    assert kinds(found)["norm"] == 400
    trained(model, IMAGES, cross_entropy, found)


def test_vision_transformer():
    model = vision("vit_b_16", image_size=32)
    model.encoder.layers = model.encoder.layers[:1]
    found = laws(model, IMAGES, cross_entropy)
    assert kinds(found) == {"head": 2 * 12, "norm": 3 * 768}
    assert {e.reason for e in found.rejected} == {"GELU is not homogeneous", "only but for ε = 1e-06 of LayerNorm"}


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2(tied):
    model = gpt2(tie_word_embeddings=tied)
    found = laws(model, TEXT)
    assert kinds(found) == {"head": 2 * 2 * 2, "norm": 4 * 8 + (0 if tied else 8)}
    assert {"it is added to what scales otherwise", "only but for ε = 1e-05 of LayerNorm"} == {
        entry.reason for entry in found.rejected
    }
    trained(model, TEXT, None, found)


@pytest.mark.parametrize("tied", [True, False])
def test_llama(tied):
    model = llama(tie_word_embeddings=tied)
    found = laws(model, TEXT)
    assert kinds(found) == {
        "head": 2 * (2 + 2),  # in each block, of two groups: one rotated pair each of queries and keys, and values
        "norm": 4 * 8 + (0 if tied else 8),
        "unit": 2 * 6,
    }
    trained(model, TEXT, None, found)


def test_bert():
    model = bert()
    found = laws(model, TEXT)
    assert kinds(found)["head"] == 2 * 2 * 2
    assert "GELU is not homogeneous" in {entry.reason for entry in found.rejected}
    trained(model, TEXT, None, found)


@pytest.mark.parametrize("make", [gpt2, llama, bert])
def test_none_is_missed(make):
    """The black box counts as many, in evaluation, where dropout does not draw, and with an ε that does not matter."""
    epsilon = {gpt2: "layer_norm_epsilon", llama: "rms_norm_eps", bert: "layer_norm_eps"}[make]
    model = make(**{epsilon: 1e-30}).eval()
    assert diagonal_rank(laws(model, TEXT)) == count_diagonal_laws(model, TEXT).count


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("resnet10t", {}, {"norm"}), ("vit_tiny_patch16_224", {"img_size": 32, "depth": 1}, {"head", "norm"})],
)
def test_timm(name, options, expected):
    define_operators()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10, **options)
    found = laws(model, IMAGES, cross_entropy)
    assert set(kinds(found)) == expected
    trained(model, IMAGES, cross_entropy, found)
