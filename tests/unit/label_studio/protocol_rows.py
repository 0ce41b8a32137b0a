"""Every measured row of Label Studio 1.23.2's protocol, and the tests that hold us to it.

``ROWS``: what was measured -> tests as ``file::function``, below ``tests/``.  ``test_protocol_rows.py`` fails where one of them
does not exist.  Rows that only say what Label Studio does are covered by the runs against the real one.
"""

from __future__ import annotations

_HTTP = "unit/label_studio/test_http_setup_predict.py"
_HOOK = "unit/label_studio/test_http_webhook.py"
_FETCH = "unit/label_studio/test_fetching.py"
_REPLAY = "unit/label_studio/test_protocol_replayed.py"
_READ = "unit/label_studio/test_corrections.py"
_PUSH = "unit/label_studio/test_push.py"
_FIND = "unit/label_studio/test_reconcile.py"
_FORM = "unit/label_studio/test_regions.py"
_WRITE = "unit/label_studio/test_predictions.py"
_RLE = "unit/label_studio/test_brush_rle.py"
_DOCTOR = "unit/label_studio/test_doctor_checks.py"
_CONNECT = "unit/label_studio/test_connect.py"
_REAL = "integration/test_label_studio_real.py"

ROWS: dict[str, tuple[str, ...]] = {
    # -- private addresses
    "defaults: connecting a backend at 127.0.0.1 is 403": (
        f"{_DOCTOR}::test_private_addresses_are_refused",
        f"{_CONNECT}::test_what_is_refused_is_said_with_its_mending",
    ),
    "only ML_BLOCK_LOCAL_IP=false: connected, but no webhook": (
        f"{_DOCTOR}::test_a_connected_backend_without_its_webhook",
    ),
    "USE_DEFAULT_BANNED_SUBNETS=false: connected, webhook delivered": (
        f"{_REAL}::test_correct_one_mask_and_the_next_masks_are_better",
    ),
    # -- tokens
    "/setup carries the creator's legacy token; off by default, it is 401": (
        f"{_FETCH}::test_a_token_that_label_studio_offers_serves_where_none_is_set",
        f"{_FETCH}::test_refused_tokens_say_what_to_do",
        f"{_DOCTOR}::test_tokens",
    ),
    "a personal access token is exchanged, and what it gives is renewed within 300 s": (
        f"{_FETCH}::test_a_personal_access_token_is_exchanged_and_renewed_when_refused",
        f"{_FETCH}::test_a_personal_access_token_is_renewed_before_its_300_seconds_are_over",
        f"{_REAL}::test_a_personal_access_token_is_exchanged",
    ),
    # -- images
    "uploads and local files are paths and need the token": (
        f"{_FETCH}::test_paths_are_fetched_from_label_studio_with_its_token",
        f"{_REAL}::test_correct_one_mask_and_the_next_masks_are_better",
    ),
    "images elsewhere are fetched without credentials, from public addresses": (
        f"{_FETCH}::test_other_hosts_get_no_credentials",
        f"{_FETCH}::test_private_addresses_are_refused_directly_and_along_redirects",
        f"{_FETCH}::test_redirects_carry_neither_credentials_nor_cookies_elsewhere",
        f"{_FETCH}::test_the_address_that_was_checked_is_the_one_connected_to",
    ),
    "images in s3 and gs": (
        "unit/label_studio/test_images_s3.py::test_pictures_are_read_and_what_cannot_be_is_one_sentence",
        "unit/label_studio/test_images_stored.py::test_images_in_allowed_buckets_are_read",
    ),
    "hostname of /setup may be anything": (f"{_FETCH}::test_a_forged_hostname_gets_no_credentials",),
    # -- routes and time limits
    "GET /health before every predict, 1 s": (
        f"{_HTTP}::test_health_versions_and_status",
        "unit/label_studio/test_setup_memory.py::test_the_routes_answer_while_the_store_is_stuck",
        "soak/test_retrieve_predictions.py::test_all_are_predicted_and_none_twice_for_one_version",
    ),
    "POST /setup after each /health, 3 s, one try; 5xx is state Error": (
        "unit/label_studio/test_setup_memory.py::test_a_first_question_that_the_store_does_not_answer_is_an_error_in_time",
        "soak/test_answers_in_time.py::test_answers_stay_in_time_while_corrections_are_learned",
    ),
    "POST /predict, 100 s for the whole batch": (
        f"{_HTTP}::test_a_batch_over_the_budget_is_answered_with_exactly_one",
        f"{_PUSH}::test_a_batch_too_long_is_handed_over_where_configured_so",
    ),
    "POST /webhook, 1 s, one try, never again": (
        f"{_HOOK}::test_masks_are_not_decoded_in_the_request",
        "soak/test_answers_in_time.py::test_answers_stay_in_time_while_corrections_are_learned",
        "soak/test_events.py::test_corrections_learned_are_corrections_made_each_once",
    ),
    "POST /webhook START_TRAINING blocks the caller": (
        f"{_HOOK}::test_other_captured_events_are_answered",
        f"{_REAL}::test_a_lost_event_is_found_when_training_is_asked_for",
    ),
    "GET /versions": (f"{_HTTP}::test_health_versions_and_status",),
    # -- bodies and events
    "each captured request": (f"{_REPLAY}::test_each_captured_request",),
    "extra_params is whatever JSON was stored": (f"{_HTTP}::test_extra_params_are_the_projects_options",),
    "project is 'id.created' in /setup and /predict, an object in events": (
        f"{_REPLAY}::test_each_captured_request",
        f"{_HOOK}::test_bad_events_are_4xx_and_the_server_lives",
    ),
    "ANNOTATION_CREATED": (f"{_HOOK}::test_a_correction_and_its_job_are_stored_and_the_worker_woken",),
    "ANNOTATION_CREATED of a Skip": (
        f"{_HOOK}::test_skips_and_untouched_predictions_teach_nothing",
        f"{_REAL}::test_skips_teach_nothing_and_deletions_take_back",
    ),
    "ANNOTATION_UPDATED": (f"{_HOOK}::test_an_update_replaces_and_one_that_teaches_nothing_takes_back",),
    "ANNOTATIONS_DELETED, in the plural": (
        f"{_HOOK}::test_deleted_annotations_and_tasks_are_retracted",
        f"{_REAL}::test_skips_teach_nothing_and_deletions_take_back",
    ),
    "PROJECT_UPDATED: any save, a changed config too": (
        f"{_HOOK}::test_other_captured_events_are_answered",
        f"{_FIND}::test_a_renamed_label_keeps_what_it_learned",
    ),
    "TASKS_DELETED": (f"{_HOOK}::test_deleted_annotations_and_tasks_are_retracted",),
    "TASKS_CREATED": (f"{_HOOK}::test_unknown_events_are_ignored",),
    "origin manual, prediction, prediction-changed": (
        f"{_READ}::test_drawn_and_edited_teach_untouched_do_not",
        f"{_READ}::test_a_captured_edit_from_the_browser",
    ),
    "parent_prediction names the prediction when all its regions were deleted": (
        f"{_HOOK}::test_an_emptied_prediction_is_stored_as_a_correction_of_all_its_labels",
        f"{_READ}::test_deleted_regions_teach",
    ),
    # -- bad answers
    "400, 500, 503, time-out: nothing stored, 'Retrieved N predictions' all the same": (
        f"{_HTTP}::test_a_model_that_cannot_be_loaded_is_said_once",
    ),
    "fewer results than tasks: all dropped": (
        f"{_REPLAY}::test_one_null_version_or_score_would_lose_the_whole_batch",
        f"{_HTTP}::test_a_bad_task_is_skipped_and_the_others_kept",
    ),
    "exactly one result: asked again task by task, stored after the last one": (
        f"{_HTTP}::test_a_batch_over_the_budget_is_answered_with_exactly_one",
        "unit/label_studio/test_sweeps.py::test_a_batch_asked_for_again_is_not_begun_again_while_label_studio_goes_through_it",
        "soak/test_retrieve_predictions.py::test_all_are_predicted_and_none_twice_for_one_version",
    ),
    "model_version null or a score that is no number: the whole batch is lost": (
        f"{_REPLAY}::test_one_null_version_or_score_would_lose_the_whole_batch",
        f"{_WRITE}::test_scores_stay_in_bounds",
    ),
    "result []: stored; [] for a task: that task skipped": (
        f"{_WRITE}::test_absent_and_empty_proposals_give_no_region",
        f"{_HTTP}::test_a_bad_task_is_skipped_and_the_others_kept",
    ),
    "unknown label, RLE of a wrong size, score out of bounds: stored, and the editor shows nothing": (
        f"{_HTTP}::test_masks_have_the_images_own_size_and_order",
        f"{_WRITE}::test_a_mask_of_another_size_is_refused",
    ),
    "with its validation on: label, from_name, bytes and score are checked": (
        f"{_WRITE}::test_regions_have_what_label_studio_validates",
        f"{_REAL}::test_label_studios_own_library_accepts_our_predictions",
        "integration/test_regions_against_sdk.py::test_the_sdk_accepts_every_form",
    ),
    # -- versions
    "/setup and /predict say the same string": (
        f"{_HTTP}::test_setup_and_predict_say_the_same_version",
        "integration/test_kill_after_webhook.py::test_setup_and_predict_agree_while_the_model_is_still_loading",
    ),
    "a new token is a new string; an old string's stored predictions are used again": (
        f"{_HTTP}::test_a_token_that_becomes_active_meanwhile_gives_the_new_version",
        "integration/test_rollback.py::test_rollback_restores_the_previous_predictions_exactly",
    ),
    "deleting predictions by version sets the project's model_version to null": (
        f"{_PUSH}::test_only_our_own_old_predictions_are_deleted",
    ),
    "pushed predictions are shown and not asked for": (
        f"{_PUSH}::test_tokens_that_land_in_a_row_give_one_push_of_the_next_open_tasks",
        f"{_REAL}::test_when_a_token_lands_the_next_open_tasks_are_predicted_again",
    ),
    # -- who asks, and when
    "a task opened in the data manager is asked for twice at once": (
        f"{_PUSH}::test_the_twin_of_a_request_under_way_is_answered_with_nothing",
        f"{_PUSH}::test_the_late_twin_of_a_request_that_was_answered_and_stored_is_answered_with_nothing",
        f"{_HTTP}::test_equal_requests_in_flight_are_joined_and_answered_from_memory_later",
        f"{_REAL}::test_a_task_asked_for_twice_at_once_is_stored_once_and_shown_both_times",
    ),
    "'Retrieve predictions' is one request with every selected task": (
        "soak/test_retrieve_predictions.py::test_all_are_predicted_and_none_twice_for_one_version",
    ),
    "uncertainty sampling sorts by the backend's title": (
        f"{_PUSH}::test_uncertainty_sampling_is_given_the_title_it_sorts_by",
        f"{_DOCTOR}::test_uncertainty_ordering_needs_the_title",
        f"{_REAL}::test_connect_wires_a_project_and_events_that_were_lost_are_found",
    ),
    # -- interactive
    "smart keypoints and rectangles": (
        "unit/label_studio/test_interactive.py::test_a_captured_keypoint_picks_the_object_under_it",
        "unit/label_studio/test_interactive.py::test_a_captured_rectangle_clips",
        "unit/label_studio/test_interactive.py::test_negative_points_subtract",
    ),
    "nothing of a smart request is stored": (
        "unit/label_studio/test_interactive.py::test_clicks_are_not_remembered_as_served",
    ),
    "errors of a smart request come back as 200": (f"{_REPLAY}::test_a_smart_request_that_fails_says_why",),
    # -- basic authentication
    "credentials of the backend's URL come to every route; the webhook Label Studio makes has none: 401": (
        f"{_REPLAY}::test_credentials_in_the_backends_url_open_every_route",
        f"{_HOOK}::test_the_secret",
        f"{_DOCTOR}::test_a_webhook_without_the_secret",
    ),
    "a webhook's headers may carry the secret": (
        f"{_HOOK}::test_the_secret",
        f"{_REAL}::test_skips_teach_nothing_and_deletions_take_back",
    ),
    "a backend's URL may have a path": (
        f"{_HOOK}::test_connections_keep_apart",
        f"{_REAL}::test_skips_teach_nothing_and_deletions_take_back",
    ),
    # -- delivery
    "an event slower than 1 s or refused is lost for ever": (
        f"{_FIND}::test_created_updated_and_deleted_ones_whose_event_was_lost",
        f"{_HOOK}::test_a_full_disk_is_507_and_nothing_is_acknowledged",
        "unit/label_studio/test_many_events.py::test_corrections_learned_are_corrections_made_each_once",
    ),
    "deleting a backend leaves its webhook": (f"{_DOCTOR}::test_several_webhooks_to_one_backend",),
    # -- regions and run lengths
    "the run-length format, both ways against the SDK": (
        f"{_RLE}::test_reads_what_the_sdk_wrote",
        f"{_RLE}::test_round_trip",
        "integration/test_rle_against_sdk.py::test_both_codecs_read_what_the_other_wrote",
    ),
    "masks are 0 and 255, else invisible": (f"{_FORM}::test_written_masks_are_0_and_255",),
    "masks have the image's own size, else invisible": (f"{_HTTP}::test_masks_have_the_images_own_size_and_order",),
    "an EXIF orientation turns the picture": (
        f"{_HTTP}::test_a_picture_turned_by_exif_gets_regions_of_its_upright_size",
        "unit/application/test_image_source.py::test_exif_orientation_is_applied",
    ),
    "strokes have soft edges: cut at 127": (f"{_REPLAY}::test_soft_edges_of_strokes_are_cut_in_the_middle",),
    "the 32-bit count may lie": (f"{_RLE}::test_a_count_that_lies_allocates_nothing",),
    "bitmasks, polygons": (
        f"{_FORM}::test_every_form_comes_back",
        f"{_READ}::test_bitmasks_and_polygons_are_read",
    ),
    "magic wand and brush with Labels: two results of one id": (
        f"{_FORM}::test_pairs_are_two_entries_of_one_id_and_only_one_has_the_label",
        f"{_READ}::test_pairs_of_brush_and_labels_are_read_once",
    ),
}
