// Records as bytes: what lies in a blob is left out on the way to disk and put back on the way from
// it.
#include "engine/core/record.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/core.h"
#include "engine/core/json_value.h"
#include "proto/bridge.h"

namespace flux::engine {

namespace {

// The one payload of a record that may lie in a blob; null: it has none.
v1::Payload* LargePayload(v1::Record* record) {
  switch (record->kind_case()) {
    case v1::Record::kStepCompleted:
      return record->mutable_step_completed()->mutable_output();
    case v1::Record::kEventReceived:
      return record->mutable_event_received()->mutable_payload();
    case v1::Record::kEventEdited:
      return record->mutable_event_edited()->mutable_payload();
    case v1::Record::kEventReplayed:
      return record->mutable_event_replayed()->mutable_payload();
    case v1::Record::kChildClosed:
      return record->mutable_child_closed()->mutable_output();
    case v1::Record::kStepResolved:
      return record->mutable_step_resolved()->mutable_output();
    default:
      return nullptr;
  }
}

}  // namespace

uint64_t BlobOf(const v1::Record& record) {
  switch (record.kind_case()) {
    case v1::Record::kStepCompleted:
      return record.step_completed().output_blob();
    case v1::Record::kEventReceived:
      return record.event_received().payload_blob();
    case v1::Record::kEventEdited:
      return record.event_edited().payload_blob();
    case v1::Record::kEventReplayed:
      return record.event_replayed().payload_blob();
    case v1::Record::kChildClosed:
      return record.child_closed().output_blob();
    case v1::Record::kStepResolved:
      return record.step_resolved().output_blob();
    default:
      return 0;
  }
}

const v1::Payload& BlobPayload(const v1::Record& record) {
  return *LargePayload(const_cast<v1::Record*>(&record));
}

std::string SerializeRecord(const v1::Record& record) {
  const bool output_blob = BlobOf(record) != 0;
  const bool input_blobs = record.has_started() && record.started().input_blobs_size() != 0;
  if (!output_blob && !input_blobs) return SerializeDeterministic(record);
  if (output_blob && !record.has_step_completed()) {
    v1::Record shell = record;
    CopyShell(BlobPayload(record), LargePayload(&shell));
    return SerializeDeterministic(shell);
  }
  // Copied without its large data: only the shell of each payload is.
  v1::Record stripped;
  stripped.set_time_ms(record.time_ms());
  if (output_blob) {
    const v1::StepCompleted& from = record.step_completed();
    v1::StepCompleted* to = stripped.mutable_step_completed();
    *to->mutable_ref() = from.ref();
    CopyShell(from.output(), to->mutable_output());
    to->set_output_blob(from.output_blob());
    to->set_worker(from.worker());
    to->set_skipped(from.skipped());
    to->set_output_blob_bytes(from.output_blob_bytes());
    *to->mutable_labels() = from.labels();
    *to->mutable_step_labels() = from.step_labels();
  } else {
    StripStarted(record.started(), stripped.mutable_started());
  }
  return SerializeDeterministic(stripped);
}

absl::StatusOr<v1::Record> ParseRecord(std::string_view bytes, const BlobReader& blobs) {
  v1::Record record;
  if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError(
        absl::StrCat("a record of ", bytes.size(), " bytes cannot be parsed"));
  }
  if (record.kind_case() == v1::Record::KIND_NOT_SET) {
    return absl::DataLossError(
        "a record is of a kind this version does not know: it was written by a newer one");
  }
  if (const uint64_t blob = BlobOf(record); blob != 0) {
    FLUX_ASSIGN_OR_RETURN(*LargePayload(&record), blobs(blob));
  }
  if (record.has_started()) FLUX_RETURN_IF_ERROR(RestoreStarted(blobs, record.mutable_started()));
  return record;
}

void CopyShell(const v1::Payload& from, v1::Payload* to) {
  to->Clear();
  to->set_encoding(from.encoding());
}

void StripStarted(const v1::ExecutionStarted& from, v1::ExecutionStarted* to) {
  to->set_namespace_(from.namespace_());
  to->set_workflow_id(from.workflow_id());
  to->set_run_id(from.run_id());
  to->set_workflow(from.workflow());
  to->set_version(from.version());
  to->set_definition_hash(from.definition_hash());
  for (int i = 0; i < from.inputs_size(); ++i) {
    if (i < from.input_blobs_size() && from.input_blobs(i) != 0) {
      CopyShell(from.inputs(i), to->add_inputs());
    } else {
      *to->add_inputs() = from.inputs(i);
    }
  }
  to->set_request_id(from.request_id());
  to->set_seed(from.seed());
  *to->mutable_labels() = from.labels();
  to->set_identity(from.identity());
  to->set_execution_timeout_ms(from.execution_timeout_ms());
  to->set_semantics(from.semantics());
  *to->mutable_input_blobs() = from.input_blobs();
  if (from.has_parent()) *to->mutable_parent() = from.parent();
}

absl::Status RestoreStarted(const BlobReader& blobs, v1::ExecutionStarted* started) {
  for (int i = 0; i < started->input_blobs_size(); ++i) {
    if (started->input_blobs(i) == 0) continue;
    if (i >= started->inputs_size()) {
      return absl::DataLossError(absl::StrCat("input ", i, " lies in a blob, but there are only ",
                                              started->inputs_size(), " inputs"));
    }
    FLUX_ASSIGN_OR_RETURN(*started->mutable_inputs(i), blobs(started->input_blobs(i)));
  }
  return absl::OkStatus();
}

}  // namespace flux::engine
