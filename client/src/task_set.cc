#include "flux/task_set.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/src/names.h"
#include "proto/bridge.h"

namespace flux {

void TaskSet::RegisterRaw(std::string_view name, internal::TaskHandler handler) {
  absl::Status status = internal::CheckName("task name", name);
  if (status.ok() && !handlers_.emplace(name, std::move(handler)).second) {
    status = absl::AlreadyExistsError(
        absl::StrCat("task ", ToAbsl(name), " is registered twice; a task has one function"));
  }
  status_.Update(status);
}

const internal::TaskHandler* TaskSet::Find(std::string_view name) const {
  const auto found = handlers_.find(name);
  return found == handlers_.end() ? nullptr : &found->second;
}

std::vector<std::string> TaskSet::names() const {
  std::vector<std::string> names;
  names.reserve(handlers_.size());
  for (const auto& [name, handler] : handlers_) names.push_back(name);
  return names;
}

namespace {

absl::Status CheckLabel(std::string_view key, std::string_view value) {
  FLUX_RETURN_IF_ERROR(internal::CheckName("label", key));
  if (value.empty()) return absl::OkStatus();
  return internal::CheckName(ToStd(absl::StrCat("value of label ", ToAbsl(key))), value);
}

}  // namespace

absl::Status TaskContext::SetLabel(std::string_view key, std::string_view value) {
  FLUX_RETURN_IF_ERROR(CheckLabel(key, value));
  LabelText(std::string(key), std::string(value));
  return absl::OkStatus();
}

absl::Status TaskContext::SetStepLabel(std::string_view key, std::string_view value) {
  FLUX_RETURN_IF_ERROR(CheckLabel(key, value));
  StepLabelText(std::string(key), std::string(value));
  return absl::OkStatus();
}

namespace internal {

absl::Status CheckName(std::string_view what, std::string_view name) {
  auto bad = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad ", ToAbsl(what), " \"",
                     absl::CHexEscape(ToAbsl(name.substr(0, kNameBytesMax))), "\": ", ToAbsl(why)));
  };
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("a ", ToAbsl(what), " may not be empty"));
  }
  if (name.size() > kNameBytesMax) {
    return bad(ToStd(absl::StrCat(name.size(), " bytes, at most ", kNameBytesMax)));
  }
  if (ValidUtf8Prefix(name).size() != name.size()) return bad("not UTF-8");
  const auto control = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) == 0x7F;
  };
  if (std::any_of(name.begin(), name.end(), control)) {
    return bad("control characters are not allowed");
  }
  return absl::OkStatus();
}

RawOutcome WrongInputCount(size_t expected, size_t found) {
  return RawOutcome::Fail(errors::kBadInput(absl::StrCat(
      "the task takes ", expected, expected == 1 ? " input" : " inputs", ", was given ", found,
      "; the workflow and this worker disagree about its signature")));
}

RawOutcome BadInput(size_t index, const absl::Status& status) {
  return RawOutcome::Fail(errors::kBadInput(
      absl::StrCat("input ", index + 1, " cannot be read: ", ToAbsl(Message(status)))));
}

RawOutcome BadResult(const absl::Status& status) {
  return RawOutcome::Fail(
      errors::kBadResult(absl::StrCat("the result cannot be written: ", ToAbsl(Message(status)))));
}

}  // namespace internal
}  // namespace flux
