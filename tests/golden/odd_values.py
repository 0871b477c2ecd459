"""A history of values that are hard to print, as pandas writes it: OUT/signals.parquet and OUT/tags_description.csv."""

import os
import sys

import numpy as np
import pandas as pd

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
rows = 6000
random = np.random.default_rng(20150101)
edges = [0.0, -0.0, 1e-4, 9.999e-5, 1e-5, 1.5e-7, 9999999999999998.0, 1e16, 1e22, 5e-324, 1.7976931348623157e308,
         np.inf, -np.inf, np.nan, 999999.0, 1e6, 16777216.0, 0.1, 1 / 3]
double_bits = random.integers(0, 2**64, rows, dtype=np.uint64).view(np.float64)
single_bits = random.integers(0, 2**32, rows, dtype=np.uint32).view(np.float32)
with np.errstate(all='ignore'):
    columns = {
        'bits-64': double_bits,
        'bits-32': single_bits,
        'edges-64': np.resize(edges, rows),
        'edges-32': np.resize(edges, rows).astype(np.float32),
        'decimals': np.round(random.normal(0, 100, rows), 3),
        'powers': 10.0 ** random.uniform(-12, 24, rows),
        'powers-32': (10.0 ** random.uniform(-12, 24, rows)).astype(np.float32),
        'int8': random.integers(-128, 128, rows).astype(np.int8),
        'uint8': random.integers(0, 256, rows).astype(np.uint8),
        'uint32': random.integers(0, 2**32, rows).astype(np.uint32),
        'int64': random.integers(-2**63, 2**63 - 1, rows),
    }
index = pd.date_range('1999-12-29', periods=rows, freq='1min', unit='ns', name='Timestamp')
# An infinite value is a missing one to lookoutd; pandas would write a word.
frame = pd.DataFrame(columns, index=index).replace([np.inf, -np.inf], np.nan)
frame.to_parquet(os.path.join(out, 'signals.parquet'), row_group_size=2500)
tags = [(name, '', 'subsystem-%02d' % (number % 3)) for number, name in enumerate(columns)]
pd.DataFrame(tags, columns=['Tag', 'UOM', 'Subsystem']).to_csv(os.path.join(out, 'tags_description.csv'), index=None)
