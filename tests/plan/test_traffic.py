"""Exchanges read out of a program's text: the forms they are written in, loops, and what cannot be counted."""

from __future__ import annotations

import re

import pytest

from protloc_jax.plan.traffic import collectives, totals

PROGRAM = """HloModule jit_step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%async_scatter (p: f32[64,32]) -> f32[8,32] {
  ROOT %rs = f32[8,32]{1,0} reduce-scatter(%p), channel_id=4, replica_groups=[2,8]<=[16], dimensions={0}, to_apply=%add
}

%inner_body (c: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %ar.1 = (bf16[4,8]{1,0:T(8,128)(2,1)}, /*index=1*/f32[]) all-reduce(%x, %y), groups={{0,1,2,3},{4,5,6,7}}
}

%inner_condition (c: (s32[], f32[4,8])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%outer_body (c: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %w = (s32[], f32[4,8]{1,0}) while(%t), condition=%inner_condition, body=%inner_body, turns=12
}

%one (p: f32[]) -> f32[] {
  %cp = (f32[2,3]{1,0}, f32[2,3]{1,0}, u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
  %cp.done = f32[2,3]{1,0} collective-permute-done(%cp)
}

%other (p: f32[]) -> f32[] {
  ROOT %same = f32[] copy(%p)
}

ENTRY %main (p: f32[]) -> f32[] {
  %w2 = (s32[], f32[4,8]{1,0}) while(%t), condition=%inner_condition, body=%outer_body, turns=3
  %ag = (f32[4,16]{1,0}, f32[16,16]{1,0}) all-gather-start(%p), groups=mesh['data'=2,'fsdp'=4] {'fsdp'}
  %ag.done = f32[16,16]{1,0} all-gather-done(%ag)
  %ags = ((f32[1], u8[2]{0}), (f32[8], u8[16]{0})) all-gather-start(%p, %q), groups={{0,1,2,3,4,5,6,7}}
  %rs = ((f32[64,32]{1,0}), f32[8,32]{1,0}) async-start(%p), calls=%async_scatter
  %ars = f32[100]{0} all-reduce-start(%p), replica_groups={{0,1}}, to_apply=%add
  %alone = f32[7]{0} all-reduce(%p), groups={{0},{1}}, to_apply=%add
  %if = f32[] conditional(%c, %p, %q), branch_computations={%one, %other}
  %fake = f32[] fusion(%p), kind=kLoop, calls=%other, metadata={op_name="all-reduce(x)"}
  ROOT %r = f32[] copy(%p)
}
"""


# Written short above, as XLA writes it here.
PROGRAM = re.sub(r"turns=(\d+)", r'backend_config={"known_trip_count":{"n":"\1"}}', PROGRAM)
PROGRAM = PROGRAM.replace(" groups=", " replica_groups=")


def test_every_form_is_read_and_loops_are_counted():
    found = {(c.kind, c.group, c.times): c for c in collectives(PROGRAM)}
    assert len(found) == len(collectives(PROGRAM)) == 6
    looped = found["all-reduce", 4, 36]
    assert looped.arrays == (("bf16", (4, 8)), ("f32", ()))
    assert (looped.bytes, looped.total) == (68, 68 * 36)
    assert found["all-gather", 4, 1].bytes == 4 * 256
    assert found["all-gather", 8, 1].bytes == 8 * 4 + 16
    assert found["reduce-scatter", 8, 1].bytes == 64 * 32 * 4
    assert found["all-reduce", 2, 1].bytes == 400
    assert found["collective-permute", 0, 1].bytes == 24
    assert totals(found.values())["all-reduce", 2] == 400


def test_what_cannot_be_counted_is_refused():
    unknown = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"12"}}', "")
    with pytest.raises(ValueError, match="unknown length"):
        collectives(unknown)
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("HloModule empty")
