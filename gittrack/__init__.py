"""gittrack: experiment tracking in Git, with MLflow's Python API.

    import gittrack

    gittrack.set_experiment("churn")
    with gittrack.start_run():
        gittrack.log_param("depth", 5)
        for epoch in range(10):
            gittrack.log_metric("loss", 1 / (epoch + 1), step=epoch)
        gittrack.log_artifact("model.pkl")
    best = gittrack.search_runs(order_by=["metrics.loss"])

Every run becomes a commit on top of the code that made it.  ``import gittrack as mlflow`` runs MLflow code.

Names are loaded when they are first used (PEP 562), so that the import costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; importing `typing` for it would cost more than all of this
if TYPE_CHECKING:
    from typing import Any

    from gittrack import (
        artifacts as artifacts,
        catboost as catboost,
        client as client,
        data as data,
        entities as entities,
        exceptions as exceptions,
        fluent as fluent,
        keras as keras,
        lightgbm as lightgbm,
        models as models,
        onnx as onnx,
        pyfunc as pyfunc,
        pytorch as pytorch,
        sklearn as sklearn,
        statsmodels as statsmodels,
        tracking as tracking,
        transformers as transformers,
        xgboost as xgboost,
    )
    from gittrack._version import (
        __version__ as __version__,
    )
    from gittrack.client import (
        Client as Client,
        MlflowClient as MlflowClient,
        RunOperations as RunOperations,
    )
    from gittrack.errors import (
        GittrackError as GittrackError,
        MlflowException as MlflowException,
    )
    from gittrack.fluent import (
        ActiveRun as ActiveRun,
        active_run as active_run,
        create_experiment as create_experiment,
        delete_experiment as delete_experiment,
        delete_experiment_tag as delete_experiment_tag,
        delete_run as delete_run,
        delete_tag as delete_tag,
        disable_system_metrics_logging as disable_system_metrics_logging,
        enable_system_metrics_logging as enable_system_metrics_logging,
        end_run as end_run,
        flush_artifact_async_logging as flush_artifact_async_logging,
        flush_async_logging as flush_async_logging,
        get_artifact_uri as get_artifact_uri,
        get_experiment as get_experiment,
        get_experiment_by_name as get_experiment_by_name,
        get_parent_run as get_parent_run,
        get_run as get_run,
        last_active_run as last_active_run,
        load_table as load_table,
        log_artifact as log_artifact,
        log_artifacts as log_artifacts,
        log_batch as log_batch,
        log_dict as log_dict,
        log_figure as log_figure,
        log_image as log_image,
        log_input as log_input,
        log_inputs as log_inputs,
        log_metric as log_metric,
        log_metrics as log_metrics,
        log_outputs as log_outputs,
        log_param as log_param,
        log_params as log_params,
        log_stream as log_stream,
        log_table as log_table,
        log_text as log_text,
        restore_experiment as restore_experiment,
        restore_run as restore_run,
        search_experiments as search_experiments,
        search_runs as search_runs,
        set_experiment as set_experiment,
        set_experiment_tag as set_experiment_tag,
        set_experiment_tags as set_experiment_tags,
        set_system_metrics_node_id as set_system_metrics_node_id,
        set_system_metrics_samples_before_logging as set_system_metrics_samples_before_logging,
        set_system_metrics_sampling_interval as set_system_metrics_sampling_interval,
        set_tag as set_tag,
        set_tags as set_tags,
        start_run as start_run,
    )
    from gittrack.frameworks import (
        autolog as autolog,
    )
    from gittrack.logged_model_fluent import (
        ActiveModel as ActiveModel,
        clear_active_model as clear_active_model,
        create_external_model as create_external_model,
        delete_logged_model_tag as delete_logged_model_tag,
        finalize_logged_model as finalize_logged_model,
        get_active_model_id as get_active_model_id,
        get_logged_model as get_logged_model,
        initialize_logged_model as initialize_logged_model,
        last_logged_model as last_logged_model,
        log_model_params as log_model_params,
        search_logged_models as search_logged_models,
        set_active_model as set_active_model,
        set_logged_model_tags as set_logged_model_tags,
    )
    from gittrack.media import (
        Image as Image,
    )
    from gittrack.registry_fluent import (
        register_model as register_model,
        search_model_versions as search_model_versions,
        search_registered_models as search_registered_models,
        set_model_version_tag as set_model_version_tag,
    )
    from gittrack.sharing import (
        bundle as bundle,
        pull as pull,
        push as push,
        unbundle as unbundle,
    )
    from gittrack.stores import (
        get_registry_uri as get_registry_uri,
        get_tracking_uri as get_tracking_uri,
        is_tracking_uri_set as is_tracking_uri_set,
        set_registry_uri as set_registry_uri,
        set_tracking_uri as set_tracking_uri,
    )

#: Where each name is defined; the imports above say the same to type checkers, and a test compares the two.
_HOMES = {
    "gittrack._version": "__version__",
    "gittrack.client": "Client MlflowClient RunOperations",
    "gittrack.errors": "GittrackError MlflowException",
    "gittrack.fluent": (
        "ActiveRun active_run create_experiment delete_experiment delete_experiment_tag delete_run delete_tag "
        "disable_system_metrics_logging enable_system_metrics_logging end_run flush_artifact_async_logging "
        "flush_async_logging get_artifact_uri get_experiment get_experiment_by_name get_parent_run get_run "
        "last_active_run load_table log_artifact log_artifacts log_batch log_dict log_figure log_image log_input "
        "log_inputs log_metric log_metrics log_outputs log_param log_params log_stream log_table log_text "
        "restore_experiment restore_run search_experiments search_runs set_experiment set_experiment_tag "
        "set_experiment_tags set_system_metrics_node_id set_system_metrics_samples_before_logging "
        "set_system_metrics_sampling_interval set_tag set_tags start_run"
    ),
    "gittrack.frameworks": "autolog",
    "gittrack.logged_model_fluent": (
        "ActiveModel clear_active_model create_external_model delete_logged_model_tag finalize_logged_model "
        "get_active_model_id get_logged_model initialize_logged_model last_logged_model log_model_params "
        "search_logged_models set_active_model set_logged_model_tags"
    ),
    "gittrack.media": "Image",
    "gittrack.registry_fluent": "register_model search_model_versions search_registered_models set_model_version_tag",
    "gittrack.sharing": "bundle pull push unbundle",
    "gittrack.stores": "get_registry_uri get_tracking_uri is_tracking_uri_set set_registry_uri set_tracking_uri",
}
_MODULES = (
    "artifacts",
    "catboost",
    "client",
    "data",
    "entities",
    "exceptions",
    "fluent",
    "keras",
    "lightgbm",
    "models",
    "onnx",
    "pyfunc",
    "pytorch",
    "sklearn",
    "statsmodels",
    "tracking",
    "transformers",
    "xgboost",
)
_WHERE = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*_WHERE, *_MODULES]  # noqa: PLE0604 - these are texts


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _WHERE:
        value = getattr(import_module(_WHERE[name]), name)
    elif name in _MODULES:
        value = import_module(f"gittrack.{name}")
    else:
        import difflib

        near = difflib.get_close_matches(name, __all__, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise AttributeError(f"gittrack has no `{name}`{hint}", name=name)
    globals()[name] = value  # from now on Python finds it without asking
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
