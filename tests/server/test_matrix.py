"""The attack matrix of the server, row by row, with the tests that play it.

N: who one is; Z: what one may; B: browsers; S: requests that the server would make; K: limits.  A row names tests of
this repository; that they are there is tested here, that they pass is for them to say.
"""

import ast
from functools import lru_cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_backend  # it starts no server
TESTS = Path(__file__).parents[1]

#: Row: what is tried, and where.
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "N1": (
        "every route of the application without a token",
        (
            "server/test_login::test_every_route_asks_for_credentials",
            "server/test_roles::test_who_shows_no_credentials_gets_nowhere",
            "server/test_limits::test_there_are_no_web_sockets",
            "server/test_tracking::test_every_route_says_who_may_ask_it",
        ),
    ),
    "N2": (
        "wrong, expired, revoked, cut and foreign tokens; in the address; empty passwords",
        (
            "server/test_guard::test_what_is_no_token",
            "server/test_guard::test_tokens_that_ended",
            "server/test_guard::test_a_token_in_an_address_is_not_taken",
            "server/test_guard::test_revoking_is_seen_within_a_second",
            "server/test_guard::test_passwords",
            "server/test_accounts::test_what_no_header_says",
            "server/test_accounts::test_a_token_as_a_name_needs_a_password",
            "server/test_hostile::test_who_and_from_where",
        ),
    ),
    "N3": (
        "a first start that others can reach; credentials in the package",
        (
            "server/test_guard::test_a_server_that_knows_nobody_is_for_one_machine",
            "server/test_login::test_a_server_for_others",
            "server/test_accounts::test_no_credentials_are_in_the_package",
        ),
    ),
    "N4": (
        "headers that change a request, other spellings of a path, other methods",
        (
            "server/test_guard::test_headers_that_change_a_request_do_not",
            "server/test_guard::test_paths_are_written_in_one_way",
            "server/test_guard::test_methods_that_nobody_needs",
            "server/test_guard::test_only_trusted_proxies_say_who_asks",
            "server/test_login::test_other_spellings_of_a_path",
            "server/test_login::test_what_is_like_a_path_is_another",
            "server/test_openapi::test_methods_that_an_address_has_not",
        ),
    ),
    "N5": (
        "ten failures, and a line in the audit log",
        (
            "server/test_guard::test_ten_failures_are_enough",
            "server/test_guard::test_a_token_id_is_tried_from_many_addresses",
            "server/test_login::test_logging_in_can_be_tried_ten_times",
        ),
    ),
    "Z1": (
        "role by route by method, from the application itself; a route that declares nothing",
        (
            "server/test_roles::test_who_may_nothing_with_it",
            "server/test_roles::test_everybody_gets_as_far_as_his_role",
            "server/test_roles::test_a_route_that_only_says_that_it_reads_is_found",
            "server/test_tracking::test_a_route_without_a_permission_stops_the_start",
        ),
    ),
    "Z2": (
        "lists, searches, comparisons and errors name nothing hidden; what is forbidden is as if it were not there",
        (
            "server/test_roles::test_what_one_may_not_see_is_as_if_it_were_not_there",
            "server/test_roles::test_pages_do_not_tell_how_much_is_hidden",
            "server/test_roles::test_a_version_of_a_hidden_model_cannot_be_copied",
            "server/test_roles::test_finding_out_takes_as_long_as_if_nothing_were_there",
            "server/test_roles::test_an_experiment_is_not_renamed_into_what_is_of_others",
            "server/test_graphql::test_what_one_may_not_see_is_as_if_it_were_not_there",
            "server/test_views::test_what_somebody_may_not_see_is_not_counted_and_not_named",
        ),
    ),
    "Z3": (
        "uploads of others: parts, ends, files that are there",
        (
            "server/test_limits::test_files_of_others_are_not_sent_for_them",
            "server/test_limits::test_an_upload_that_is_not_finished_takes_nothing_away",
            "server/test_limits::test_two_who_send_one_file_leave_one_whole",
            "server/test_lfs::test_other_bytes_are_not_stored",
            "server/test_lfs::test_who_may",
        ),
    ),
    "Z4": (
        "a writer promotes, deletes, changes permissions; a reader writes",
        (
            "server/test_roles::test_everybody_gets_as_far_as_his_role",
            "server/test_git::test_stages_take_a_maintainer",
            "server/test_git::test_pushes_need_their_roles",
            "server/test_git::test_purging_takes_a_maintainer",
        ),
    ),
    "Z5": (
        "git over HTTP has the same policy",
        (
            "server/test_git::test_refs_are_shown_to_those_who_may_read_them",
            "server/test_git::test_what_is_hidden_is_not_had_by_its_name",
            "server/test_git::test_what_is_hidden_is_not_had_by_a_push",
            "server/test_git::test_refs_that_are_none_of_a_pushs",
            "server/test_git_guard::test_a_token_is_the_password",
        ),
    ),
    "B1": (
        "a name of another site that points here, on every route",
        (
            "server/test_login::test_every_route_looks_at_the_host",
            "server/test_guard::test_other_names_are_refused_everywhere",
            "server/test_hostile::test_who_and_from_where",
        ),
    ),
    "B2": (
        "requests that a page of another site causes",
        (
            "server/test_guard::test_requests_that_others_cause",
            "server/test_guard::test_what_a_form_can_send_is_not_read",
            "server/test_guard::test_forged_requests_with_a_session",
            "server/test_login::test_every_route_refuses_other_sites",
            "ui/test_attacks::test_a_page_of_another_site_can_do_nothing",
        ),
    ),
    "B3": (
        "preflights of other sites",
        (
            "server/test_guard::test_preflights",
            "server/test_guard::test_pages_of_others_may_not_ask",
            "ui/test_attacks::test_a_page_of_another_site_can_do_nothing",
        ),
    ),
    "B4": (
        "files that do something in a browser",
        (
            "server/test_artifacts::test_what_a_browser_gets_cannot_run",
            "ui/test_attacks::test_files_run_nowhere",
            "ui/test_attacks::test_files_run_in_no_frame",
        ),
    ),
    "B5": (
        "texts that do something in a browser",
        (
            "ui/test_attacks::test_no_text_is_more_than_text",
            "ui/test_pages::test_an_attack_is_shown_as_text",
        ),
    ),
    "B6": (
        "frames of other sites, headers that are split, redirects to elsewhere",
        (
            "server/test_guard::test_answers_are_safe_in_a_browser",
            "server/test_hostile::test_queries_and_paths_that_nobody_writes",
            "ui/test_attacks::test_a_page_of_another_site_can_do_nothing",
            "ui/test_attacks::test_logging_in_leads_nowhere_else",
        ),
    ),
    "S1": (
        "addresses of this machine, of a cloud's metadata and of files in every field",
        (
            "server/test_limits::test_no_address_that_somebody_sends_is_asked",
            "server/test_limits::test_a_version_has_no_source_of_this_machine_and_none_is_asked",
        ),
    ),
    "K1": (
        "bodies without a length, without an end, too large, slow, compressed; very many headers",
        (
            "server/test_hostile::test_bodies_of_any_size",
            "server/test_hostile::test_what_is_no_message",
            "server/test_guard::test_bodies_in_pieces_are_counted",
            "server/test_login::test_large_bodies",
            "server/test_login::test_a_large_head",
            "server/test_artifacts::test_a_file_that_is_too_large_leaves_nothing",
            "serving/test_server::test_a_client_that_sends_drop_by_drop",
            "serving/test_server::test_a_client_that_does_not_finish_its_request",
        ),
    ),
    "K2": (
        "very many ranges, idle connections, web sockets, sizes of pages, long histories, documents of GraphQL",
        (
            "server/test_graphql::test_documents_that_cost_too_much",
            "server/test_graphql::test_answers_that_cost_too_much",
            "server/test_graphql::test_every_root_field_is_a_request",
            "server/test_limits::test_very_many_ranges_are_one_file",
            "server/test_limits::test_idle_connections_keep_nobody_out",
            "server/test_limits::test_there_are_no_web_sockets",
            "server/test_limits::test_pages_have_a_size",
            "server/test_limits::test_long_histories_are_thinned",
        ),
    ),
    "K3": (
        "tags of answers, requests that come again, very many tags",
        (
            "server/test_limits::test_a_request_that_comes_again_changes_nothing_more",
            "server/test_limits::test_very_many_tags",
            "server/test_views::test_an_unchanged_answer_is_not_sent_again",
            "server/test_faults::test_a_killed_server_has_kept_what_it_answered_for",
        ),
    ),
}


@lru_cache
def known_of(module: str) -> frozenset[str]:
    tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_played(row: str) -> None:
    for one in ROWS[row][1]:
        module, _, name = one.partition("::")
        assert name in known_of(module), one


def test_no_row_is_missing() -> None:
    assert set(ROWS) == {f"{kind}{at}" for kind, most in {"N": 5, "Z": 5, "B": 6, "S": 1, "K": 3}.items()
                         for at in range(1, most + 1)}  # fmt: skip
