"""Train classifiers on one of scikit-learn's real datasets: `python train.py --dataset wine --model knn tree`."""

import argparse

from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import gittrack

gittrack.autolog()  # every training is recorded: parameters, metrics, data, code

DATASETS = {"wine": load_wine, "breast_cancer": load_breast_cancer}
MODELS = {
    "knn": lambda args: KNeighborsClassifier(n_neighbors=args.neighbors),
    "tree": lambda args: DecisionTreeClassifier(max_depth=args.depth, random_state=0),
    "forest": lambda args: RandomForestClassifier(n_estimators=args.trees, max_depth=args.depth, random_state=0),
    "svc": lambda args: SVC(C=args.c),
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--dataset", choices=DATASETS, default="wine")
parser.add_argument("--model", choices=MODELS, nargs="+", default=["forest"])
parser.add_argument("--neighbors", type=int, default=5, help="of knn")
parser.add_argument("--depth", type=int, default=4, help="of tree and forest")
parser.add_argument("--trees", type=int, default=50, help="of forest")
parser.add_argument("--c", type=float, default=1.0, help="of svc")
args = parser.parse_args()

X, y = DATASETS[args.dataset](return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)

gittrack.set_experiment(args.dataset)
for name in args.model:
    with gittrack.start_run(run_name=name):
        model = MODELS[name](args)
        model.fit(X_train, y_train)
        accuracy = accuracy_score(y_test, model.predict(X_test))
        print(f"{args.dataset} {name}: accuracy {accuracy:.3f}")
