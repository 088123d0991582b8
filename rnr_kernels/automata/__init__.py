"""Regular languages of text, and masks of the tokens that keep a response inside one."""
