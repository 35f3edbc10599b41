"""Writes src/metrics/unicode_tables.h from the running Python's Unicode database: python3 tests/metrics/unicode_tables.py > FILE

The metrics' references are Python programs, so their lower case, words and punctuation are Python's.
"""

import sys
import unicodedata

SIGMA = "\u03a3"


def properties(char: str) -> int:
    """Bits as in metrics/unicode.h."""
    category = unicodedata.category(char)[0]
    # Python lower-cases a final sigma by rules over "cased" and "case-ignorable" characters, which it shows only so.
    stops_here = ("A" + SIGMA + char + " ").lower()[1] == "\u03c3"
    stops_or_passes = ("A" + SIGMA + char + "A").lower()[1] == "\u03c3"
    ignorable = stops_or_passes and not stops_here
    return (
        char.isalnum()
        | (category == "N") << 1
        | (category == "P") << 2
        | (category == "S") << 3
        | stops_here << 4
        | ignorable << 5
    )


def property_runs() -> list[int]:
    runs, last = [], None
    for code in range(0x110000):
        bits = 0 if 0xD800 <= code < 0xE000 else properties(chr(code))
        if bits != last:
            runs.append(code << 8 | bits)
        last = bits
    return runs


def lower_runs() -> list[tuple[int, int, int, int]]:
    """(first, last, stride, what to add) of characters whose lower case is one other character."""
    runs = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        lower = chr(code).lower()
        if len(lower) != 1 or lower == chr(code):
            continue
        delta = ord(lower) - code
        if runs and runs[-1][3] == delta:
            first, last, stride, _ = runs[-1]
            if (first == last and code - last <= 2) or (first != last and code - last == stride):
                runs[-1] = (first, code, code - last, delta)
                continue
        runs.append((code, code, 1, delta))
    return runs


def main() -> None:
    print(f"""// Made by tests/metrics/unicode_tables.py; Unicode {unicodedata.unidata_version}, Python {sys.version.split()[0]}.
#pragma once

#include <cstdint>

namespace switchyard::unicode_tables {{

// Each entry begins a run of characters with the same properties: code point << 8 | bits.
inline constexpr uint32_t kProperties[] = {{""")
    print("    " + ", ".join(f"0x{run:X}" for run in property_runs()))
    print("""};

struct LowerRun {
  uint32_t first, last;
  uint8_t stride;
  int32_t delta;
};
inline constexpr LowerRun kLower[] = {""")
    print("    " + ", ".join(f"{{0x{a:X}, 0x{b:X}, {c}, {d}}}" for a, b, c, d in lower_runs()))
    print("""};

}  // namespace switchyard::unicode_tables""")


if __name__ == "__main__":
    main()
