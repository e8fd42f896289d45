"""Tables, plots and pictures of what the other rooms measured."""
