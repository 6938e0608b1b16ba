"""Everything that touches WebAssembly."""
