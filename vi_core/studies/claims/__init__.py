"""Claims of the reports' theory questions: what the library computes, each beside the same number by another route."""
