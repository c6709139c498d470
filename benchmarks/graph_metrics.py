"""What the metrics of one reasoning graph cost, beside networkx for the same numbers on the same graph.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/graph_metrics.py [--nodes 2000] [--responses 256]
        [--steps 40] [--repeats 3] [--graphlets igraph] [--study 120]

Draws the nodes of responses by Zipf's law (the R-th with a probability proportional to 1 / R), builds the graph, and
takes seconds for each part, the least of the repeats; networkx runs once. `null models` are the random graphs that two
metrics are divided by: networkx makes one of them, and its time is given for one. networkx has no graphlets:
`--graphlets igraph` lists them with motifs_randesu(4), which takes a minute. One core; nothing is extrapolated.
`--study 120` then measures that many different graphs (30 problems, 4 models) spread over all cores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
from joblib import Parallel, cpu_count, delayed

from dereason.analysis import ranks
from dereason.analysis.graphlets import GRAPHLETS, graphlets
from dereason.analysis.graphs import build
from dereason.analysis.settings import Graphs
from dereason.analysis.topology import METRICS, topology


def seconds(work: Callable[[], object], repeats: int) -> tuple[float, object]:
    """The least time of several runs, and what came out."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def with_networkx(net: nx.Graph) -> dict[str, Callable[[], object]]:
    """Each number as networkx has it; what needs connection on the largest component."""
    giant = net.subgraph(max(nx.connected_components(net), key=len))

    def null() -> tuple[float, float]:
        other = nx.double_edge_swap(net.copy(), nswap=10 * net.size(), max_tries=10**8, seed=0)
        part = other.subgraph(max(nx.connected_components(other), key=len))
        return nx.average_clustering(other), nx.average_shortest_path_length(part)

    return {
        "betweenness": lambda: nx.betweenness_centrality(net),
        "density": lambda: nx.density(net),
        "clustering": lambda: nx.average_clustering(net),
        "assortativity": lambda: nx.degree_assortativity_coefficient(net),
        "modularity": lambda: nx.community.modularity(net, nx.community.louvain_communities(net, seed=0)),
        "path length": lambda: nx.average_shortest_path_length(giant),
        "global efficiency": lambda: nx.global_efficiency(net),
        "algebraic connectivity": lambda: nx.algebraic_connectivity(giant, method="lanczos", seed=0),
        "one null model": null,
    }


def one_graph(seed: int, nodes: int, responses: int, steps: int) -> int:
    """Everything that the analysis measures on one graph; its number of nodes."""
    weight = 1 / np.arange(1, nodes + 1)
    paths = np.random.default_rng(seed).choice(nodes, size=(responses, steps), p=weight / weight.sum())
    settings = Graphs()
    graph = build(paths.tolist(), None, settings)
    ranks.quantities(graph, settings)
    topology(graph, settings, 0)
    graphlets(graph)
    return len(graph.nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("nodes", 2000), ("responses", 256), ("steps", 40), ("repeats", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--graphlets", choices=["none", "igraph"], default="none")
    parser.add_argument("--study", type=int, default=0)
    args = parser.parse_args()

    weight = 1 / np.arange(1, args.nodes + 1)
    rng = np.random.default_rng(args.seed)
    paths = rng.choice(args.nodes, size=(args.responses, args.steps), p=weight / weight.sum())
    settings = Graphs()
    built, _ = seconds(lambda: build(paths.tolist(), None, settings), args.repeats)
    graph = build(paths.tolist(), None, settings)
    net = graph.as_igraph(directed=False)
    print(
        f"{len(graph.nodes)} nodes, {len(graph.edges)} edges, {net.ecount()} links, largest degree {max(net.degree())}"
    )
    ranked, quantities = seconds(lambda: ranks.quantities(graph, settings), args.repeats)
    shape, numbers = seconds(lambda: topology(graph, settings, 0), args.repeats)
    shares, small = seconds(lambda: graphlets(graph), args.repeats)
    whole = built + ranked + shape + shares
    print(
        f"build {built:.3f} s, rank curves {ranked:.3f} s, eight metrics ({settings.null_samples} null models) ", end=""
    )
    print(f"{shape:.3f} s, graphlets {shares:.3f} s: together {whole:.2f} s")
    assert isinstance(numbers, dict)
    assert isinstance(small, dict)
    assert isinstance(quantities, dict)
    print(", ".join(f"{name} {numbers[name]:.4g}" for name in METRICS))
    print(", ".join(f"{name} {small[name]:.4g}" for name in GRAPHLETS))

    reference = nx.Graph(net.get_edgelist())
    reference.add_nodes_from(range(net.vcount()))
    total = 0.0
    for name, work in with_networkx(reference).items():
        taken, found = seconds(work, 1)
        total += taken
        print(f"networkx {name}: {taken:.2f} s{f' ({found:.4g})' if isinstance(found, float) else ''}")
        if name == "betweenness":
            assert isinstance(found, dict)
            expected = [found[i] for i in range(net.vcount())]
            assert np.allclose(quantities["betweenness"], expected, atol=1e-9)
    print(f"networkx together, with one null model in place of {settings.null_samples}: {total:.1f} s", end="")
    print(f", {total / (ranked + shape):.0f} times ours")
    if args.graphlets == "igraph":
        taken, found = seconds(lambda: net.motifs_randesu(4), 1)
        assert isinstance(found, list)
        print(f"igraph motifs_randesu(4): {taken:.1f} s, {taken / shares:.0f} times ours; ", end="")
        print(f"{np.nansum(found):.0f} graphlets")
    if args.study:
        sizes = (args.nodes, args.responses, args.steps)
        start = time.perf_counter()
        found_nodes = Parallel(n_jobs=-1)(delayed(one_graph)(seed, *sizes) for seed in range(args.study))
        taken = time.perf_counter() - start
        print(f"{args.study} graphs of {np.mean(found_nodes):.0f} nodes on {cpu_count()} cores: {taken:.0f} s")


if __name__ == "__main__":
    main()
