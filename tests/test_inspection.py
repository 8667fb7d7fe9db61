"""What inspection says is exact: sums, lenses and knock-outs of every family, against transformers and on their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from closeness import assert_close, near
from families import CASES, Pair, random_ids, save
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_parts import as_tensor, load_engine

from tokenglass.model.checkpoint.folder import Checkpoint
from tokenglass.model.errors import ParameterError, PromptError
from tokenglass.model.inspection.lens import divergence_bits
from tokenglass.model.inspection.reading import LIVE_POSITIONS, Reading, flow_rows
from tokenglass.model.inspection.records import Effect, Flow
from tokenglass.model.records.codec import from_dict, to_dict
from tokenglass.model.torch_engine.engine import TorchEngine

LENGTH = 50  # longer than the window of the cases that have one
WINDOWED = ["mistral, window", "phi3, window"]  # in every layer


RECURRENT = ("qwen3_5", "qwen3_next")  # whose refusal is in test_delta_net.py
LOOKED_INTO = [name for name in CASES if not name.startswith(RECURRENT)]


@pytest.fixture(scope="module", params=LOOKED_INTO, ids=lambda name: name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return loaded_pair(tmp_path_factory.mktemp("flow"), request.param)


def loaded_pair(folder: Path, case: str) -> Pair:
    reference = save(folder, *CASES[case])
    return Pair(reference, load_engine(Checkpoint.open(folder), dtype="float32", device="cpu"), folder)


def piece(token_id: int) -> bytes:
    return f" {token_id}".encode()


def ids_of(length: int = LENGTH) -> list[int]:
    return random_ids(length, rows=1)[0].tolist()


def read(engine: TorchEngine, ids: list[int]) -> Reading:
    return Reading(engine, ids, piece)


def raw_logits(engine: TorchEngine, ids: list[int]) -> Tensor:
    """The model's own logits (vocab,) before a final soft cap."""
    taken: list[Tensor] = []
    hook = engine.model.lm_head.register_forward_hook(lambda _module, _inputs, output: taken.append(output[-1]))
    as_tensor(engine.forward(torch.tensor([ids]), None))
    hook.remove()
    return taken[0] * (engine.model.config.logit_scale or 1)


def test_the_components_sum_to_the_difference_of_the_logits(pair: Pair) -> None:
    ids = ids_of()

    for position in (1, 20, LENGTH - 1):
        flow = read(pair.engine, ids).at(position)

        logits = raw_logits(pair.engine, ids[:position])
        expected = (logits[flow.chosen.token_id] - logits[flow.runner_up.token_id]).item()
        assert flow.difference == near(expected)
        assert flow.sum_of_components == near(flow.difference)
        assert len({component.name for component in flow.components}) == len(flow.components)


def test_what_attention_carried_is_split_among_the_positions_without_a_rest(pair: Pair) -> None:
    flow = read(pair.engine, ids_of()).at(LENGTH - 1)

    for component in flow.components:
        if component.kind == "attention":
            carried = sum(influence.attribution[component.layer - 1] for influence in flow.positions)
            assert abs(carried - component.logit) < 1e-9
    weights = torch.tensor([influence.weight for influence in flow.positions])
    if pair.engine.model.config.sinks:  # which take the rest
        assert ((weights.sum(0) > 0.5) & (weights.sum(0) < 1)).all()
    else:
        torch.testing.assert_close(weights.sum(0), torch.ones(weights.shape[1]))


def test_the_lens_of_the_last_layer_is_the_models_own_distribution(pair: Pair) -> None:
    ids = ids_of()

    flow = read(pair.engine, ids).at(LENGTH - 1)

    own = as_tensor(pair.engine.forward(torch.tensor([ids[:-1]]), None))[0, 0].log_softmax(-1)
    last = flow.layers[-1]
    assert last.top.token_id == own.argmax()
    assert abs(math.log(last.prob) - own[ids[-1]].item()) < 1e-4
    assert abs(flow.logprob - own[ids[-1]].item()) < 1e-4
    assert last.rank == flow.rank == (own > own[ids[-1]]).sum() + 1
    assert last.kl_bits == 0
    assert flow.layers[flow.commit_depth].top == last.top
    assert flow.commit_depth == 0 or flow.layers[flow.commit_depth - 1].top != last.top


def test_lenses_are_those_of_the_hidden_states_of_transformers(pair: Pair) -> None:
    ids = ids_of()

    flow = read(pair.engine, ids).at(LENGTH - 1)

    model = pair.reference
    with torch.inference_mode():
        states = model(torch.tensor([ids[:-1]]), output_hidden_states=True).hidden_states
    for told, state in zip(flow.layers[:-1], states[:-1], strict=True):  # the last one has its norm already
        final_norm, cap = final_norm_of(model), getattr(model.config, "final_logit_softcapping", None)
        with torch.inference_mode():
            logits = model.get_output_embeddings()(final_norm(state[0, -1]))
            logits = logits * getattr(model.config, "logit_scale", 1) / getattr(model.config, "logits_scaling", 1)
        lens = (logits if cap is None else cap * torch.tanh(logits / cap)).log_softmax(-1)
        assert abs(told.norm - state[0, -1].norm().item()) < 1e-3
        assert abs(told.prob - lens[ids[-1]].exp().item()) < 1e-4
        assert abs(told.top_prob - lens.max().exp().item()) < 1e-4


def final_norm_of(model: Any) -> Any:
    base = model.base_model
    names = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "embedding_norm")
    return next(getattr(base, name) for name in names if hasattr(base, name))


TYPED = (
    "qwen2_moe",
    "gpt_oss",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "qwen2",
    "qwen3",
    "smollm3",
    "olmo3",
    "cohere2",
    "exaone4",
    "ministral",
    "vaultgemma",
    "dots1",
)


def masks(model: Any, length: int, hidden: int, *, total: bool) -> Any:
    """What transformers may look at: everything before, within each layer's window, but not `hidden`: from the last
    position, or from all after it."""
    queries, keys = torch.arange(length)[:, None], torch.arange(length)[None]
    sees = keys <= queries
    sees &= ~((keys == hidden) & ((queries > hidden) if total else (queries == length - 1)))
    window = getattr(model.config, "sliding_window", None) or length
    slides = sees & (keys > queries - window)

    def additive(mask: Tensor) -> Tensor:
        return torch.where(mask, 0.0, torch.finfo(torch.float32).min)[None, None]

    types = set(getattr(model.config, "layer_types", None) or [])
    if "conv" in types:  # which transformers tells the positions that nobody sees
        both = {"full_attention": additive(sees), "sliding_attention": additive(slides)}
        return {**both, "conv": (keys != hidden).float() if total else None}
    if model.config.model_type in ("mistral", "mixtral", "phi3"):
        return additive(slides)
    if types and model.config.model_type in TYPED:
        both = {"full_attention": additive(sees), "sliding_attention": additive(slides)}
        return {name: both[name] for name in types}
    return additive(sees)


@pytest.mark.parametrize("total", [False, True], ids=["direct", "total"])
def test_a_knock_out_is_what_transformers_computes_with_that_position_masked(pair: Pair, total: bool) -> None:
    ids = ids_of()

    flow = read(pair.engine, ids).at(LENGTH - 1, total=total)

    inputs = torch.tensor([ids[:-1]])
    whole = pair.reference_logits(inputs)[0, -1].double().log_softmax(-1)
    largest = 0.0
    convolves = any(kind.convolution for kind in pair.engine.model.config.layers)
    positions = (0, 3, 20, LENGTH - 5, LENGTH - 3)
    for hidden in positions[:-1] if convolves and not total else positions:  # its mask hides from all that follow
        with torch.inference_mode():
            pair.reference(inputs[:, :1])  # its dynamic rope forgets
            mask = masks(pair.reference, LENGTH - 1, hidden, total=total)
            without = pair.reference(inputs, attention_mask=mask).logits[0, -1].double().log_softmax(-1)
        knock_out_bits = flow.positions[hidden].total if total else flow.positions[hidden].direct
        assert knock_out_bits is not None
        assert abs(knock_out_bits.kl_bits - divergence_bits(whole, without).item()) < 2e-4
        assert abs(knock_out_bits.logprob_change - (without[ids[-1]] - whole[ids[-1]]).item()) < 2e-4
        largest = max(largest, knock_out_bits.kl_bits)
    assert largest > 1e-3  # hiding something did something


def test_terms_of_convolutions_with_biases_add_up_and_hiding_the_last_but_one_is_hiding_it_from_all(
    tmp_path: Path,
) -> None:
    family, options = CASES["lfm2"]
    save(tmp_path, family, {**options, "conv_bias": True, "layer_types": ["conv", "full_attention", "conv"]})
    engine = load_engine(Checkpoint.open(tmp_path), dtype="float32", device="cpu")

    flow = read(engine, ids_of()).at(LENGTH - 1, total=True)

    assert flow.sum_of_components == near(flow.difference)
    names = {component.name for component in flow.components}
    assert {"convolution 1", "kernel 1 bias", "convolution 1 bias", "attention 2", "convolution 3"} < names
    before = flow.positions[-2]
    assert before.direct is not None
    assert before.total is not None
    assert before.direct.kl_bits > 1e-3
    assert before.direct.kl_bits == pytest.approx(before.total.kl_bits, abs=1e-5)


@pytest.mark.parametrize("case", WINDOWED)
def test_hiding_a_position_outside_of_every_window_does_exactly_nothing(case: str, tmp_path: Path) -> None:
    pair = loaded_pair(tmp_path, case)

    flow = read(pair.engine, ids_of()).at(LENGTH - 1)

    assert pair.engine.model.config.window == 16
    for influence in flow.positions[: LENGTH - 1 - 16]:
        assert influence.direct == Effect(0.0, 0.0)
        assert set(influence.attribution) == set(influence.weight) == {0.0}
    assert all(influence.direct.kl_bits > 0 for influence in flow.positions[LENGTH - 1 - 16 : -1])


def test_the_last_position_is_where_the_choice_is_made_and_is_not_hidden(pair: Pair) -> None:
    flow = read(pair.engine, ids_of()).at(20, total=True)

    assert [influence.direct is None for influence in flow.positions] == [False] * 19 + [True]
    assert [influence.total is None for influence in flow.positions] == [False] * 19 + [True]


def test_numbers_do_not_depend_on_the_way_along_the_text_or_on_the_cache(pair: Pair) -> None:
    ids = ids_of(110)
    reading = Reading(pair.engine, ids, piece)
    there = reading.at(104)
    reading.at(109)
    reading.at(30)
    close(there, reading.at(104))

    cache = pair.engine.new_cache(planned_length=len(ids))
    for part in torch.tensor([ids[:104]]).split(9, dim=1):
        as_tensor(pair.engine.forward(part, cache))
    before = [state.array.clone() for state in cache.rows[0].states]
    rows = flow_rows(pair.engine.model, cache, ids[:104], ids[104], piece)

    assert all(torch.equal(old, state.array) for old, state in zip(before, cache.rows[0].states, strict=True))
    assert cache.lengths == [104]
    positions = [row for row in rows if row["row"] == "position"]
    assert len(positions) == LIVE_POSITIONS
    for row in positions:
        known = there.positions[row["position"]]
        assert row["logit"] == near(known.logit)
        assert abs(row["kl_bits"] - known.direct.kl_bits) < 2e-4
    assert [row["top"] for row in rows if row["row"] == "layer"] == [
        positions.top.piece.decode() for positions in there.layers
    ]


def close(first: Flow, second: Flow) -> None:
    assert first.chosen == second.chosen
    assert [layer.top for layer in first.layers] == [layer.top for layer in second.layers]
    for one, other in zip(first.positions, second.positions, strict=True):
        assert one.logit == near(other.logit)
        assert one.direct is other.direct or abs(one.direct.kl_bits - other.direct.kl_bits) < 2e-4


def test_no_hook_stays_in_the_model(pair: Pair) -> None:
    read(pair.engine, ids_of()).at(5)

    assert not any(module._forward_hooks for module in pair.engine.model.modules())


def test_a_dtype_that_rounds_says_so_in_a_row_of_its_own(saved_checkpoint: Path) -> None:
    engine = load_engine(Checkpoint.open(saved_checkpoint), dtype="bfloat16", device="cpu")

    flow = read(engine, ids_of()).at(20)

    assert flow.components[-1].name == "rounding to bfloat16"
    assert abs(flow.sum_of_components - flow.difference) < 1e-9
    assert abs(flow.components[-1].logit) < 0.5


def test_flows_come_back_from_json_as_they_were(saved_checkpoint: Path) -> None:
    engine = load_engine(Checkpoint.open(saved_checkpoint), dtype="float32", device="cpu")

    flow = Reading(engine, ids_of(), lambda token_id: bytes([token_id % 256])).at(20, total=True)

    assert from_dict(Flow, to_dict(flow)) == flow


def test_there_is_nothing_to_explain_before_the_second_token(saved_checkpoint: Path) -> None:
    engine = load_engine(Checkpoint.open(saved_checkpoint), dtype="float32", device="cpu")

    with pytest.raises(PromptError, match="one token"):
        read(engine, [1])
    with pytest.raises(PromptError, match="300 tokens and the context holds 256"):
        read(engine, ids_of(300))
    for position in (0, 20, -1):
        with pytest.raises(ParameterError, match="positions 1 to 19"):
            read(engine, ids_of(20)).at(position)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=6), st.data())
def test_a_divergence_is_that_of_its_definition(logits: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(st.floats(-30, 30), min_size=len(logits), max_size=len(logits)))
    first, second = (torch.tensor(row, dtype=torch.float64).log_softmax(-1) for row in (logits, others))

    bits = divergence_bits(first, second).item()

    expected = sum(math.exp(a) * (a - b) for a, b in zip(first.tolist(), second.tolist(), strict=True)) / math.log(2)
    assert bits == pytest.approx(expected, abs=1e-9)
    assert bits >= 0
    assert divergence_bits(first, first).item() == 0


def test_a_token_without_probability_adds_nothing_to_a_divergence() -> None:
    sure = torch.tensor([1.0, 0.0]).log()

    assert divergence_bits(sure, torch.tensor([0.5, 0.5]).log()).item() == pytest.approx(1)


def small_gpt2(folder: Path) -> tuple[Any, TorchEngine, list[int]]:
    reference = save(folder, "gpt2", {**CASES["gpt2"][1], "_attn_implementation": "eager"})
    reference.set_attn_implementation("eager")
    return reference, load_engine(Checkpoint.open(folder), dtype="float32", device="cpu"), ids_of(24)


def test_attribution_is_that_of_hooks_on_transformers_gpt2(tmp_path: Path) -> None:
    """The same split made from the outside: modules' inputs and outputs, gradients for the frozen norm."""
    reference, engine, ids = small_gpt2(tmp_path)
    flow = read(engine, ids).at(len(ids) - 1)
    taken: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            taken[name] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    for layer, block in enumerate(reference.transformer.h):
        block.attn.c_attn.register_forward_hook(keep(f"qkv {layer}"))
        block.mlp.register_forward_hook(keep(f"mlp {layer}"))
    reference.transformer.ln_f.register_forward_pre_hook(lambda _module, inputs: taken.update(final=inputs[0].detach()))
    with torch.no_grad():
        attentions = reference(torch.tensor([ids[:-1]]), output_attentions=True).attentions
    norm, final = reference.transformer.ln_f, taken["final"][0, -1]
    head = reference.lm_head.weight[flow.chosen.token_id] - reference.lm_head.weight[flow.runner_up.token_id]
    scale = (final.var(correction=0) + norm.eps).sqrt()
    probe = torch.zeros_like(final, requires_grad=True)
    (direction,) = torch.autograd.grad(head @ (norm.weight * (probe - probe.mean()) / scale), probe)

    named = {component.name: component.logit for component in flow.components}
    places = torch.arange(len(ids) - 1)
    embedding = reference.transformer.wte.weight[ids[-2]]
    assert named["embedding"] == near((direction @ embedding).item())
    assert named["position embedding"] == near((direction @ reference.transformer.wpe.weight[places[-1]]).item())
    assert named["final norm bias"] == near((head @ norm.bias).item())
    for layer, block in enumerate(reference.transformer.h):
        value = taken[f"qkv {layer}"][0].split(32, dim=-1)[2].view(-1, 4, 8)  # (length, heads, head_dim)
        mixed = attentions[layer][0, :, -1].T[:, :, None] * value  # (length, heads, head_dim)
        carried = mixed.flatten(1) @ block.attn.c_proj.weight @ direction
        attribution = torch.tensor([position.attribution[layer] for position in flow.positions])
        assert_close(attribution, carried)
        attribution = torch.tensor([position.weight[layer] for position in flow.positions])
        torch.testing.assert_close(attribution, attentions[layer][0, :, -1].mean(0), rtol=0, atol=1e-5)
        bias = (direction @ block.attn.c_proj.bias).item()
        assert named[f"attention {layer + 1} bias"] == near(bias)
        mlp = (direction @ taken[f"mlp {layer}"][0, -1]).item()
        assert named[f"MLP {layer + 1}"] + named[f"MLP {layer + 1} bias"] == near(mlp)


def test_lens_and_attribution_agree_with_transformer_lens(tmp_path: Path) -> None:
    pytest.importorskip("transformer_lens")
    reference, engine, ids = small_gpt2(tmp_path)
    from transformer_lens.model_bridge import TransformerBridge  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.byte_level_tokenizer())
    model = TransformerBridge.boot_transformers(str(tmp_path), hf_model=reference, tokenizer=tokenizer, device="cpu")
    flow = read(engine, ids).at(len(ids) - 1)
    with torch.inference_mode():
        logits, cache = model.run_with_cache(torch.tensor([ids[:-1]]))
    own = logits[0, -1].log_softmax(-1)
    assert abs(own[ids[-1]].item() - flow.logprob) < 1e-4

    pair = (flow.chosen.token_id, flow.runner_up.token_id)
    direction = model.W_U[:, pair[0]] - model.W_U[:, pair[1]]
    named = {component.name: component.logit for component in flow.components}
    stack, labels = cache.decompose_resid(layer=-1, mode="all", pos_slice=-1, return_labels=True)
    scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)[:, 0] * model.ln_final.w
    by_label = dict(zip(labels, (scaled @ direction).tolist(), strict=True))
    assert by_label["embed"] == near(named["embedding"])
    assert by_label["pos_embed"] == near(named["position embedding"])
    for layer in range(3):
        for theirs, ours in (("attn_out", "attention"), ("mlp_out", "MLP")):
            mine = named[f"{ours} {layer + 1}"] + named[f"{ours} {layer + 1} bias"]
            assert abs(by_label[f"{layer}_{theirs}"] - mine) < 1e-4
    for layer, state in enumerate(cache.accumulated_resid(layer=-1, pos_slice=-1, incl_mid=False, apply_ln=False)):
        with torch.inference_mode():
            probs = model.unembed(model.ln_final(state[None]))[0, 0].softmax(-1)
        assert abs(probs[ids[-1]].item() - flow.layers[layer].prob) < 1e-4
