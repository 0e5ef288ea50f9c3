"""What YAML may say: one declaration per kind of document, their shared fields, and rules over several."""
