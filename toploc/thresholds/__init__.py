"""What figures are held against: bounds on chunks, on tokens, on whole answers."""
