"""Channel plans as text, and every plan that two sets of channels permit.

How published studies wired two-channel images to four-channel or colour weights is mostly not published: which slots
stay empty, how many passes are made, which vectors stand side by side. So a plan is chosen by a text, and a study can
go through all that apply, each with the width of its features. With N a nucleus, P a protein channel, and slots
(microtubules, protein, nucleus, ER) or (r, g, b), the readings of "natural", "channel-wise", "replicated" and "random":

    natural             (0,P,N,0)           each channel in the slot of its name or role, the rest zero
    natural+copy        (N,P,N,P)           the rest filled with the channels in turn; natural+copy:P,N gives (P,P,N,N)
    per-channel         (0,P,0,0) (0,0,N,0) each channel alone in its slot, one pass each
    per-channel:SLOT    (0,N,0,0) (0,P,0,0) each channel alone in one and the same slot, one pass each
    replicate           (N,N,N,N) (P,P,P,P) each channel in all slots, one pass each; replicate:P for some of them
    colour              (0,P,N)             natural, for mere colours: r microtubules, g protein, b nucleus
    colour+copy         (N,P,N)             the same, the rest filled in turn
    colour-per-channel  (0,P,0) (0,0,N)     the same, one pass each
    permuted:SEED       (N,0,0,P)           the natural slots in a random order; permuted:SEED:PLAN moves any plan's
    slots:r=,g=P,b=N    (0,P,N)             one pass, slot by slot; what is not named is zero
    passes:0,P,0;0,0,N  (0,P,0) (0,0,N)     all slots of all passes

Zero is the raw value: weights that were trained with the constants of a data set see (0 - mean) / std in such a slot.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence

from protloc_jax.channels import (
    ROLES,
    Channel,
    ChannelPlan,
    ChannelSet,
    explicit,
    natural,
    per_channel,
    replicate,
)
from protloc_jax.config import nearest

# The Human Protein Atlas's display colours: what colour slots stand for where nothing else is known.
COLOURS = {
    "r": "microtubules",
    "red": "microtubules",
    "g": "protein",
    "green": "protein",
    "b": "nucleus",
    "blue": "nucleus",
}
KINDS = (
    "natural", "natural+copy", "per-channel", "replicate", "colour", "colour+copy", "colour-per-channel", "permuted",
    "slots", "passes",
)  # fmt: skip
MOST_SLOTS = 7  # whose arrangements are listed one by one: 5,040


def plan_of(text: str, model: ChannelSet, source: ChannelSet) -> ChannelPlan:
    """The plan that a text means for a model with the slots `model` and images with the channels `source`.

    Source channels are given by name, or by role where exactly one has it; 0 or nothing is an empty slot. Raises
    ValueError for a text that means nothing here, naming every unknown slot and channel at once.
    """
    kind, _, rest = (part.strip() for part in text.partition(":"))
    if kind not in KINDS:
        raise ValueError(f"channel plan '{text}': not one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if kind in ("slots", "passes") and not rest:
        raise ValueError(f"channel plan '{text}': say which channels, for example {_example(kind, model, source)}.")
    if kind == "slots":
        return _slots(text, rest, model, source)
    if kind == "passes":
        return _passes(text, rest, model, source)
    if kind == "permuted":
        return _permuted(text, rest, model, source)
    if rest and kind in ("natural", "colour", "colour-per-channel"):
        raise ValueError(f"channel plan '{text}': '{kind}' takes nothing after it.")
    if kind == "replicate":
        chosen = source.subset(_channels(text, rest.split(","), source)) if rest else source
        plan = replicate(len(model), chosen)
        return ChannelPlan(plan.passes, f"{plan.label} ({', '.join(chosen.names)})" if rest else plan.label)
    if kind == "per-channel" and rest:
        return _in_one_slot(text, rest, model, source)
    if kind.startswith("colour"):
        model = coloured(model)
    elif is_coloured(model) and not set(model.names) & set(source.names):
        raise ValueError(
            f"channel plan '{text}': the model's slots ({model}) are mere colours and have no natural channel. Use "
            f"'colour', 'replicate', or say it: {_example('slots', model, source)}."
        )
    if kind.endswith("per-channel"):
        return _renamed(per_channel(model, source), kind)
    pattern = _channels(text, rest.split(","), source) if rest else []
    return _renamed(_filled(model, source, pattern) if kind.endswith("+copy") else natural(model, source), kind)


def plans_for(model: ChannelSet, source: ChannelSet, *, seeds: Sequence[int] = (0,)) -> dict[str, ChannelPlan]:
    """Every plan that applies, by its text; of several texts with the same wiring the first.

    Natural (or, for slots that are colours, colour) with both ways of filling, per channel, replicated, and for each
    of `seeds` the slots in a random order, in one pass and per channel. `ChannelPlan.width` tells the widths.
    """
    by_colour = is_coloured(model) and not set(model.names) & set(source.names)
    roles = coloured(model) if by_colour else model
    one, each = ("colour", "colour-per-channel") if by_colour else ("natural", "per-channel")
    natural_ones, moved = [], []
    if _matches(roles, source):
        natural_ones = [one, f"{one}+copy", f"{one}+copy:{','.join(reversed(source.names))}", each]
        moved = [f"permuted:{seed}{more}" for more in ("", f":{each}") for seed in seeds] if len(model) > 1 else []
    in_slot = [f"per-channel:{model.names[roles.protein]}"] if roles.protein is not None else []
    texts = [*natural_ones, *in_slot, "replicate", *moved]
    found: dict[str, ChannelPlan] = {}
    for text in texts:
        plan = plan_of(text, model, source)
        if plan.passes not in {p.passes for p in found.values()}:
            found[text] = plan
    return found


def plan_lines(plans: Mapping[str, ChannelPlan], dim: int) -> list[str]:
    """One line a plan, ready to print: its text, its passes, and the width for a class token of `dim` numbers."""
    wide = max((len(text) for text in plans), default=0)
    return [f"{text:<{wide}}  {p.width(dim):>6}  {shown(p)}" for text, p in plans.items()]


def shown(plan: ChannelPlan) -> str:
    """The passes of a plan as '(0,gfp,0) (0,0,nucleus)'."""
    return " ".join(f"({part})" for part in plan.text.partition(":")[2].split(";"))


def unused(plan: ChannelPlan, source: ChannelSet) -> tuple[str, ...]:
    """The channels of the images that no pass reads."""
    return tuple(name for name in source.names if name not in plan.used)


def is_coloured(model: ChannelSet) -> bool:
    """Whether all slots are mere colours (red, green, blue of photographs), without a role in a cell."""
    return all(c.role == "other" and c.name.lower() in COLOURS for c in model)


def coloured(model: ChannelSet) -> ChannelSet:
    """The slots with the role that each colour has in the Human Protein Atlas; ValueError where one is no colour."""
    if not all(c.name.lower() in COLOURS for c in model):
        raise ValueError(f"plans by colour need slots that are called {', '.join(COLOURS)}; the model has {model}.")
    return ChannelSet(Channel(c.name, COLOURS[c.name.lower()]) for c in model)  # type: ignore[arg-type]


def permuted(plan: ChannelPlan, seed: int) -> ChannelPlan:
    """The plan with its slots in a random order, the same in all passes; never the order that it has already.

    The order depends on the seed alone (SHA-256), so it is the same with every version of every library. Raises
    ValueError for a plan that no order changes.
    """
    if len(set(zip(*plan.passes, strict=True))) == 1:
        raise ValueError(f"channel plan '{plan.label}' fills all slots alike, so no other order differs from it.")
    for attempt in itertools.count():
        keys = [hashlib.sha256(f"{seed}/{attempt}/{slot}".encode()).digest() for slot in range(plan.slots)]
        order = sorted(range(plan.slots), key=keys.__getitem__)
        moved = _moved(plan, order, f"random order {seed}")
        if moved.passes != plan.passes:
            return moved
    raise AssertionError("unreachable")


def permutations(plan: ChannelPlan) -> tuple[ChannelPlan, ...]:
    """Every distinct arrangement of a plan's slots, the plan itself first, else in lexicographic order of the slots.

    Raises ValueError for more than 7 slots; use `permuted` there.
    """
    if plan.slots > MOST_SLOTS:
        raise ValueError(f"{plan.slots} slots have too many arrangements to list; take random ones (permuted:SEED).")
    found: dict[tuple, ChannelPlan] = {plan.passes: plan}
    for order in itertools.permutations(range(plan.slots)):
        moved = _moved(plan, order, "order")
        found.setdefault(moved.passes, moved)
    return tuple(found.values())


def _moved(plan: ChannelPlan, order: Sequence[int], words: str) -> ChannelPlan:
    passes = tuple(tuple(slots[i] for i in order) for slots in plan.passes)
    return ChannelPlan(passes, f"{words} ({','.join(map(str, order))}) of: {plan.label}")


def _filled(model: ChannelSet, source: ChannelSet, pattern: Sequence[str]) -> ChannelPlan:
    """Natural, the empty slots filled with the pattern in turn (none given: the images' channels)."""
    plan = natural(model, source, fill="copy")
    if not pattern:
        return plan
    (slots,) = natural(model, source).passes
    turn = itertools.cycle(pattern)
    return ChannelPlan(
        (tuple(name if name is not None else next(turn) for name in slots),),
        f"{plan.label} as {','.join(pattern)}",
    )


def _in_one_slot(text: str, slot: str, model: ChannelSet, source: ChannelSet) -> ChannelPlan:
    if slot not in model.names:
        raise ValueError(
            f"channel plan '{text}': no model slot '{slot}'.{nearest(slot, model.names)} "
            f"Slots: {', '.join(model.names)}."
        )
    passes = tuple(tuple(name if s == slot else None for s in model.names) for name in source.names)
    return ChannelPlan(passes, f"per channel, always in slot {slot}")


def _slots(text: str, rest: str, model: ChannelSet, source: ChannelSet) -> ChannelPlan:
    pairs = [item.partition("=") for item in rest.split(",")]
    problems = [f"'{slot}' has no '='" for slot, sep, _ in pairs if not sep]
    names = [slot.strip() for slot, sep, _ in pairs if sep]
    problems += [f"slot '{n}' twice" for n in dict.fromkeys(names) if names.count(n) > 1]
    problems += [f"no model slot '{n}'{nearest(n, model.names)}" for n in names if n not in model.names]
    found, unknown = _resolved([value for _, sep, value in pairs if sep], source)
    if problems or unknown:
        raise ValueError(_refusal(text, [*problems, *unknown], model, source))
    return explicit(model, dict(zip(names, found, strict=True)))


def _passes(text: str, rest: str, model: ChannelSet, source: ChannelSet) -> ChannelPlan:
    each = [part.split(",") for part in rest.split(";")]
    problems = [
        f"pass {number} fills {len(slots)} slots, the model has {len(model)}"
        for number, slots in enumerate(each, start=1)
        if len(slots) != len(model)
    ]
    found, unknown = _resolved(list(itertools.chain(*each)), source)
    if problems or unknown:
        raise ValueError(_refusal(text, [*problems, *unknown], model, source))
    n = len(model)
    passes = tuple(tuple(found[i * n : (i + 1) * n]) for i in range(len(each)))
    return ChannelPlan(passes, f"explicit passes: {';'.join(','.join(name or '0' for name in p) for p in passes)}")


def _permuted(text: str, rest: str, model: ChannelSet, source: ChannelSet) -> ChannelPlan:
    seed, _, base = rest.partition(":")
    if not seed.strip().isdecimal():
        raise ValueError(f"channel plan '{text}': say permuted:SEED or permuted:SEED:PLAN, for example permuted:0.")
    usual = "colour" if is_coloured(model) else "natural"
    return permuted(plan_of(base or usual, model, source), int(seed))


def _channels(text: str, words: Sequence[str], source: ChannelSet) -> list[str]:
    """Words that each name a channel; ValueError for all that do not."""
    found, unknown = _resolved(words, source)
    unknown += [f"'{word}' is no channel" for word, name in zip(words, found, strict=True) if name is None]
    if unknown:
        raise ValueError(f"channel plan '{text}': {'; '.join(dict.fromkeys(unknown))}. Channels: {source}.")
    return [name for name in found if name is not None]


def _resolved(words: Sequence[str], source: ChannelSet) -> tuple[list[str | None], list[str]]:
    """The channel of every word (None for an empty one), and what is wrong with the words that have none."""
    found: list[str | None] = []
    problems: list[str] = []
    for word in (w.strip() for w in words):
        by_role = [source.names[i] for i in source.with_role(word)] if word in ROLES else []
        if word in source.names:
            found.append(word)
        elif len(by_role) == 1:
            found.append(by_role[0])
        else:
            found.append(None)
            if len(by_role) > 1:
                problems.append(f"'{word}' is the role of {', '.join(by_role)}: name one")
            elif word not in ("", "0"):
                problems.append(f"no channel '{word}'{nearest(word, source.names)}")
    return found, problems


def _matches(model: ChannelSet, source: ChannelSet) -> bool:
    """Whether some channel has a slot of its own name or role."""
    try:
        return bool(natural(model, source).passes)
    except ValueError:
        return False


def _renamed(plan: ChannelPlan, kind: str) -> ChannelPlan:
    return ChannelPlan(plan.passes, f"colours as in the atlas: {plan.label}") if kind.startswith("colour") else plan


def _refusal(text: str, problems: Sequence[str], model: ChannelSet, source: ChannelSet) -> str:
    listed = "; ".join(dict.fromkeys(p.rstrip("?.") + ("?" if p.endswith("?") else "") for p in problems))
    return f"channel plan '{text}': {listed}. Slots: {', '.join(model.names)}. Channels: {source}."


def _example(kind: str, model: ChannelSet, source: ChannelSet) -> str:
    first = source.names[0]
    if kind == "slots":
        return f"slots:{model.names[0]}={first}"
    return f"passes:{','.join([first, *['0'] * (len(model) - 1)])}"
