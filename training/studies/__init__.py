"""Studies: configurations of a network, trained with several seeds and compared with a control."""
