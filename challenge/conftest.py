"""Every Python block of a chapter is a test; the blocks of one chapter share their names."""

import sybil.parsers.markdown

pytest_collect_file = sybil.Sybil([sybil.parsers.markdown.PythonCodeBlockParser()], pattern="chapters/*.md").pytest()
