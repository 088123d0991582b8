"""Regular languages of text, and masks of the tokens that keep a response inside one.

From the bottom: `characters`; `dfa` and the algebra of `languages` over it, `counts` beside them;
`tokens` and `utf8`, which see a vocabulary as bytes; `walk` and `costs`; `automaton`, all of it
compiled; `matcher`, one response; `masks`, a batch of them.
"""
