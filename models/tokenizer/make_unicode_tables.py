#!/usr/bin/env python3
"""Writes unicode_tables.cc from DerivedGeneralCategory.txt of the Unicode Character Database.

Usage: make_unicode_tables.py DerivedGeneralCategory.txt > unicode_tables.cc
The file must be that of Unicode 15.1.0 (ucd/extracted): published pre-tokenizers are defined with that version.
"""
import re
import sys

CLASSES = {"L": 1, "N": 2, "P": 3, "S": 4, "M": 5}  # CodePointClass in unicode_tables.h

text = open(sys.argv[1], encoding="utf-8").read()
if not text.startswith("# DerivedGeneralCategory-15.1.0.txt"):
    sys.exit("not DerivedGeneralCategory.txt of Unicode 15.1.0")
classes = [0] * 0x110000
for m in re.finditer(r"^([0-9A-F]+)(?:\.\.([0-9A-F]+))?\s*;\s*(\w)\w", text, re.M):
    if m[3] in CLASSES:
        first = int(m[1], 16)
        last = int(m[2], 16) if m[2] else first
        classes[first:last + 1] = [CLASSES[m[3]]] * (last + 1 - first)

runs = [c for c in range(0x110000) if c == 0 or classes[c] != classes[c - 1]]
words = [f"0x{c << 3 | classes[c]:X}" for c in runs]
print("// Written by make_unicode_tables.py from DerivedGeneralCategory.txt of Unicode 15.1.0. Do not edit.")
print('#include "models/tokenizer/unicode_tables.h"\n\nnamespace lutra::unicode {\n')
print(f"const size_t kNumRuns = {len(words)};")
print("const uint32_t kRuns[] = {")
line = "   "
for w in words:
    if len(line) + len(w) + 2 > 100:
        print(line)
        line = "   "
    line += f" {w},"
print(line)
print("};\n\n}  // namespace lutra::unicode")
