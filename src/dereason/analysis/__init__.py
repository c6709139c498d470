"""What training did to reasoning: trajectories, reasoning graphs, and whether a phase squeezed or expanded them."""
