"""Privacy accounting: events as frozen data, and epsilons computed from them; knows no plan."""
