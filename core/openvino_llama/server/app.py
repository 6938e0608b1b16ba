"""The app factory. Nothing happens at import; engine and models are made in the lifespan."""

from __future__ import annotations

import logging
import re
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import MethodNotAllowedException, NotAuthorizedException, NotFoundException
from litestar.routes import HTTPRoute
from litestar.types import ExceptionHandler, ExceptionHandlersMap

from openvino_llama import __version__
from openvino_llama.plugins import Plugins, load_plugins
from openvino_llama.server.access import check_key, guard_all
from openvino_llama.server.defaults import check_defaults
from openvino_llama.server.exchange import Gateway
from openvino_llama.server.heads import answer_heads
from openvino_llama.server.inference import inference_routes
from openvino_llama.server.management import management_routes
from openvino_llama.server.openapi import home_page, openapi_config, page_files
from openvino_llama.server.operations import operation_routes
from openvino_llama.server.problems import answer_problem
from openvino_llama.server.settings import Settings
from openvino_llama.server.state import Server

__all__ = ["create_app"]

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, plugins: Plugins | None = None) -> Litestar:
    """An ASGI app that serves every model type of the installed plugins.

    It has no signal handlers and touches no global state: it runs under any ASGI server, any number of times in a
    process. ``app.state.server`` is its Server. ConfigError if a setting is wrong.
    """
    settings = settings or Settings.from_environment()
    plugins = plugins or load_plugins(settings.disabled_plugins)
    check_defaults(settings, plugins)
    server = Server(settings, plugins)
    gateway = Gateway(server)
    routes = [
        *(route for model_type in plugins.model_types.values() for route in inference_routes(model_type, server)),
        *management_routes(server),
        *operation_routes(server),
        page_files(),
    ]
    app = Litestar(
        routes,
        lifespan=[server.lifespan],
        state=State({"server": server}),
        dependencies={
            "pipeline": Provide(lambda: server.pipeline, sync_to_thread=False),
            "gateway": Provide(lambda: gateway, sync_to_thread=False),
        },
        guards=guard_all(settings.api_key),
        exception_handlers={Exception: answer_problem, **_unmatched(settings.api_key)},
        cors_config=CORSConfig(
            allow_origins=list(settings.cors_origins),
            allow_methods=["POST", "GET", "PUT", "DELETE", "OPTIONS"],
            allow_headers=["Content-Type", "Accept", "Authorization", "X-API-Key"],
            expose_headers=["OVLLAMA-Model"],
        ),
        openapi_config=openapi_config(__version__, wants_key=settings.api_key is not None),
        logging_config=None,
        debug=False,
    )
    _add_routes(app, plugins)
    if ("/", "GET") not in _methods(app):  # a plugin may have a page of its own there
        app.register(home_page)
    app.asgi_handler = answer_heads(app.asgi_handler)
    return app


def _add_routes(app: Litestar, plugins: Plugins) -> None:
    """The routes that plugins bring; what is no route, or one that is there already, is left out."""
    for handler in plugins.route_handlers():
        try:
            clashes = _methods(Router("/", route_handlers=[handler])) & _methods(app)
            if clashes:
                logger.error("a plugin's route is left out: the server has %s already", sorted(clashes))
            else:
                app.register(handler)
        except Exception:
            logger.exception("a plugin's route is left out: %r", handler)


def _methods(router: Router) -> set[tuple[str, str]]:
    """(path, method) of all routes; Litestar would let the last one of a pair win."""
    return {
        (re.sub(r"{[^}]*}", "{}", route.path), method)
        for route in router.routes
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }


def _unmatched(api_key: str | None) -> ExceptionHandlersMap:
    """Answers for paths and methods that no route has.

    Whoever has no key is not told which routes there are: guards only see requests that have found one.
    """

    def answer(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        if api_key is not None:
            try:
                check_key(request, api_key)
            except NotAuthorizedException as refusal:
                error = refusal
        return _nearest_answer(request)(request, error)

    return {NotFoundException: answer, MethodNotAllowedException: answer}


def _nearest_answer(request: Request[Any, Any, Any]) -> ExceptionHandler[Any]:
    """What answers errors of the routes whose paths begin alike: clients of ``/v1`` read no other shape."""
    first = _first_segment(request.scope["path"].removeprefix(request.scope.get("root_path", "")))
    for route in request.app.routes:
        if isinstance(route, HTTPRoute) and _first_segment(route.path) == first:
            return route.route_handlers[0].resolve_exception_handlers().get(Exception, answer_problem)
    return answer_problem


def _first_segment(path: str) -> str:
    return path.strip("/").partition("/")[0]
