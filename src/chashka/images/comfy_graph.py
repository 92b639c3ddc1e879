"""ComfyUI's graph of nodes, read back to what it draws: {id: {"class_type", "inputs": {name: value | [id, slot]}}}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_NODES = 2_000
_TEXTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "string", "value", "prompt")
_NAMES = {
    "seed": ("seed", "noise_seed"),
    "steps": ("steps",),
    "guidance_scale": ("cfg", "guidance"),
    "sampler": ("sampler_name",),
    "model": ("ckpt_name", "unet_name", "model_name"),
    "width": ("width",),
    "height": ("height",),
}
Graph = Mapping[str, Any]


def is_graph(value: Any) -> bool:
    """Whether this is such a graph."""
    nodes = value.values() if isinstance(value, dict) else ()
    return 0 < len(nodes) <= MOST_NODES and all(isinstance(node, dict) and "class_type" in node for node in nodes)


def settings(graph: Graph) -> dict[str, Any]:
    """Our names with whatever value the graph has for them: of its first sampler, and of what leads to it."""
    sampler = next((id for id in sorted(graph, key=_order) if _is_sampler(graph[id])), None)
    if sampler is None:
        return {"prompt": next(_texts(graph, list(graph)), "")}
    nodes = [node for node, _ in _upstream(graph, [sampler])]
    found: dict[str, Any] = {}
    for name, keys in _NAMES.items():
        values = (_literal(graph, _inputs(node).get(key)) for node in nodes for key in keys)
        found[name] = next((value for value in values if value is not None), None)
    inputs = _inputs(graph[sampler])
    guider = _inputs(graph.get(_target(inputs.get("guider")), {}))
    for name, links in (
        ("prompt", (inputs.get("positive"), guider.get("positive"), guider.get("conditioning"))),
        ("negative_prompt", (inputs.get("negative"), guider.get("negative"))),
    ):
        starts = [target for link in links if (target := _target(link)) in graph]
        found[name] = next(_texts(graph, starts), "")
    return found


def _is_sampler(node: Any) -> bool:
    return "Sampler" in str(node["class_type"]) and any(key in _inputs(node) for key in ("positive", "guider"))


def _inputs(node: Any) -> Mapping[str, Any]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _target(value: Any) -> str:
    """The id of the node that a link leads to, "" if it is none."""
    link = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)
    return str(value[0]) if link else ""


def _upstream(graph: Graph, starts: list[str]) -> Iterator[tuple[Any, str]]:
    """(node, id) from which something leads to ``starts``, the nearest first; graphs may have circles."""
    known = dict.fromkeys(starts)
    queue = list(known)
    for id in queue:
        yield graph[id], id
        for value in _inputs(graph[id]).values():
            target = _target(value)
            if target in graph and target not in known:
                known[target] = None
                queue.append(target)


def _texts(graph: Graph, starts: list[str]) -> Iterator[str]:
    """What nodes that encode text are given, the nearest to ``starts`` first."""
    for node, _ in _upstream(graph, starts):
        if "TextEncode" in str(node["class_type"]):
            for key in _TEXTS:
                text = _literal(graph, _inputs(node).get(key))
                if isinstance(text, str) and text.strip():
                    yield text


def _literal(graph: Graph, value: Any) -> Any:
    """A value that stands in the graph, or in the node with one value that it is linked to; None for anything else."""
    for _ in range(8):
        if not isinstance(value, list):
            return value if isinstance(value, str | int | float) else None
        inputs = _inputs(graph.get(_target(value), {}))
        value = next((inputs[key] for key in (*_TEXTS, "seed", "int", "float") if key in inputs), None)
    return None


def _order(id: str) -> tuple[int, str]:
    """Nodes in the order of their numbers."""
    return (int(id), id) if id.isdecimal() and len(id) < 12 else (10**12, id)
