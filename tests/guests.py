"""A guest whose inferences go as their first number says: for limits, traps and isolation.

It answers its input (``y = x``), without any backend; but 1 answers with the number of inferences that this instance
has run, and the others misbehave.
"""

from __future__ import annotations

import wasmtime

__all__ = ["FIRST_NUMBERS", "MOODY", "module"]

FIRST_NUMBERS = {
    "count": 1,
    "refuse": 444,
    "lie about the size": 555,
    "trap": 666,
    "loop": 777,
    "grow": 888,
    "recurse": 999,
    "lie about the shape": 1111,
}

_WAT = """
(module
  (memory (export "memory") 2)
  (global $inferences (mut i32) (i32.const 0))
  (global $top (mut i32) (i32.const 4096))
  (func (export "alloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.and (i32.add (i32.add (global.get $top) (local.get $size)) (i32.const 15)) (i32.const -16)))
    (if (i32.gt_u (global.get $top) (i32.const 131072)) (then (return (i32.const 0))))
    (local.get $at))
  (func (export "dealloc") (param i32))
  (func (export "load_model_by_name") (param i32 i32 i32) (result i32) (i32.const 0))
  (func $recurse (param $n i32) (result i32) (i32.add (call $recurse (local.get $n)) (i32.const 1)))
  (func (export "infer") (param $inputs i32) (param $count i32) (param $result i32) (result i32)
    (local $data i32) (local $first f32)
    (global.set $inferences (i32.add (global.get $inferences) (i32.const 1)))
    (local.set $data (i32.load offset=12 (local.get $inputs)))
    (local.set $first (f32.load (local.get $data)))
    (memory.copy (i32.const 1024) (local.get $inputs) (i32.const 20))
    (i32.store (local.get $result) (i32.const 1))
    (i32.store offset=4 (local.get $result) (i32.const 1024))
    (if (f32.eq (local.get $first) (f32.const 1))
      (then (f32.store (local.get $data) (f32.convert_i32_u (global.get $inferences)))))
    (if (f32.eq (local.get $first) (f32.const 444)) (then (return (i32.const -4))))
    (if (f32.eq (local.get $first) (f32.const 555)) (then (i32.store (i32.const 1040) (i32.const 0xfffffff0))))
    (if (f32.eq (local.get $first) (f32.const 666)) (then (unreachable)))
    (if (f32.eq (local.get $first) (f32.const 777)) (then (loop $again (br $again))))
    (if (f32.eq (local.get $first) (f32.const 888))
      (then
        (loop $again (br_if $again (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))
        (return (i32.const -4))))
    (if (f32.eq (local.get $first) (f32.const 999)) (then (drop (call $recurse (i32.const 0)))))
    (if (f32.eq (local.get $first) (f32.const 1111)) (then (i32.store (i32.const 1024) (i32.const 0xffffff00))))
    (i32.const 0)))
"""


def module(text: str) -> bytes:
    """WebAssembly text as a module."""
    return bytes(wasmtime.wat2wasm(text))


MOODY = module(_WAT)
