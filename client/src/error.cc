#include "flux/error.h"

#include <array>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "flux/codec.h"
#include "flux/outcome.h"
#include "proto/bridge.h"

namespace flux {
namespace {

// Key of the status payload that carries the failure, as JSON.
constexpr absl::string_view kPayloadUrl = "flux/failure";

struct CodeName {
  absl::StatusCode code;
  std::string_view name;
};
constexpr std::string_view kStatusPrefix = "flux.status.";
constexpr CodeName kCodeNames[] = {
    {absl::StatusCode::kCancelled, "cancelled"},
    {absl::StatusCode::kUnknown, "unknown"},
    {absl::StatusCode::kInvalidArgument, "invalid_argument"},
    {absl::StatusCode::kDeadlineExceeded, "deadline_exceeded"},
    {absl::StatusCode::kNotFound, "not_found"},
    {absl::StatusCode::kAlreadyExists, "already_exists"},
    {absl::StatusCode::kPermissionDenied, "permission_denied"},
    {absl::StatusCode::kResourceExhausted, "resource_exhausted"},
    {absl::StatusCode::kFailedPrecondition, "failed_precondition"},
    {absl::StatusCode::kAborted, "aborted"},
    {absl::StatusCode::kOutOfRange, "out_of_range"},
    {absl::StatusCode::kUnimplemented, "unimplemented"},
    {absl::StatusCode::kInternal, "internal"},
    {absl::StatusCode::kUnavailable, "unavailable"},
    {absl::StatusCode::kDataLoss, "data_loss"},
    {absl::StatusCode::kUnauthenticated, "unauthenticated"},
};

std::string_view NameOf(absl::StatusCode code) {
  for (const CodeName& entry : kCodeNames) {
    if (entry.code == code) return entry.name;
  }
  return "unknown";
}

absl::StatusCode CodeOf(std::string_view type) {
  if (type == errors::kCancelled.name()) return absl::StatusCode::kCancelled;
  if (type == errors::kTerminated.name()) return absl::StatusCode::kAborted;
  if (type.substr(0, 13) == "flux.timeout.") return absl::StatusCode::kDeadlineExceeded;
  if (type.substr(0, kStatusPrefix.size()) == kStatusPrefix) {
    for (const CodeName& entry : kCodeNames) {
      if (entry.name == type.substr(kStatusPrefix.size())) return entry.code;
    }
  }
  return absl::StatusCode::kUnknown;
}

absl::Status Carrying(absl::Status status, const Failure& failure) {
  std::string text;
  if (internal::WriteJson(failure, &text).ok()) {
    status.SetPayload(kPayloadUrl, absl::Cord(std::move(text)));
    return status;
  }
  // A message that is not UTF-8 (user code can make one) must not cost the type.
  Failure readable = failure;
  readable.message = std::string(internal::ValidUtf8Prefix(failure.message));
  text.clear();
  if (internal::WriteJson(readable, &text).ok()) {
    status.SetPayload(kPayloadUrl, absl::Cord(std::move(text)));
  }
  return status;
}

}  // namespace

absl::Status ErrorType::operator()(std::string message) const {
  Failure failure;
  failure.type = std::string(name_);
  failure.message = message;
  failure.non_retriable = options_.non_retriable;
  return Carrying(absl::UnknownError(absl::StrCat(ToAbsl(name_), ": ", message)), failure);
}

bool ErrorType::Is(const absl::Status& status) const {
  return !status.ok() && FailureOf(status).type == name_;
}

Failure FailureOf(const absl::Status& status) {
  if (absl::optional<absl::Cord> text = status.GetPayload(kPayloadUrl); text.has_value()) {
    absl::StatusOr<Failure> failure =
        Decode<Failure>(internal::JsonPayload(static_cast<std::string>(*text)));
    if (failure.ok()) return *std::move(failure);
  }
  Failure failure;
  failure.type = absl::StrCat(ToAbsl(kStatusPrefix), ToAbsl(NameOf(status.code())));
  failure.message = std::string(internal::ValidUtf8Prefix(Message(status)));
  return failure;
}

absl::Status ToStatus(const Failure& failure) {
  return Carrying(
      absl::Status(CodeOf(failure.type), absl::StrCat(failure.type, ": ", failure.message)),
      failure);
}

absl::Status NonRetriable(const absl::Status& status) {
  if (status.ok()) return status;
  Failure failure = FailureOf(status);
  failure.non_retriable = true;
  return Carrying(status, failure);
}

absl::Status SkippedStatus(std::string_view what) {
  return errors::kSkipped(absl::StrCat(ToAbsl(what), " was skipped and has no value"));
}

bool IsSkipped(const absl::Status& status) { return errors::kSkipped.Is(status); }

namespace internal {

RawOutcome RawOutcome::Value(Payload value) {
  RawOutcome outcome;
  outcome.kind = Kind::kValue;
  outcome.value = std::move(value);
  return outcome;
}

RawOutcome RawOutcome::Fail(Failure failure) {
  RawOutcome outcome;
  outcome.kind = Kind::kFailure;
  outcome.failure = std::move(failure);
  return outcome;
}

RawOutcome RawOutcome::Continue(const absl::Status& status,
                                std::shared_ptr<const Fragment> fragment) {
  if (!status.ok()) {
    return Fail(errors::kBadResult(
        absl::StrCat("the task cannot go on as this graph: ", status.message())));
  }
  RawOutcome outcome;
  outcome.kind = Kind::kContinue;
  outcome.fragment = std::move(fragment);
  return outcome;
}

RawOutcome RawOutcome::Fail(const absl::Status& status) { return Fail(FailureOf(status)); }

}  // namespace internal
}  // namespace flux
