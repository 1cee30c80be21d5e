// The workflows of the end-to-end tests, written with the SDK, and how they are started by hand.
#ifndef FLUX_TESTS_E2E_WORKFLOWS_H_
#define FLUX_TESTS_E2E_WORKFLOWS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "flux/codec.h"
#include "flux/v1/workflow.pb.h"
#include "flux/workflow.h"
#include "gtest/gtest.h"
#include "tests/e2e/tasks.h"

namespace flux::e2e {

using Integer = flux::Value<int64_t>;

inline constexpr flux::Workflow<int64_t(int64_t)> kChain{
    "chain", {}, [](flux::Graph& g, Integer n) {
      auto value = g.Call(kAddOne, n).Named("one");
      value = g.Call(kAddOne, value).Named("two");
      value = g.Call(kAddOne, value).Named("three");
      return g.Call(kAddOne, value).Named("four");
    }};

inline constexpr flux::Workflow<int64_t(std::vector<int64_t>)> kWide{
    "wide", {}, [](flux::Graph& g, flux::Value<std::vector<int64_t>> list) {
      auto added = g.Map(list, [&](Integer n) { return g.Call(kAddOne, n).Named("add"); });
      return g.Call(kSum, added.MaxParallel(5).Named("all")).Named("sum");
    }};

inline constexpr flux::Workflow<std::vector<std::string>(std::vector<int64_t>)> kStamps{
    "stamps", {}, [](flux::Graph& g, flux::Value<std::vector<int64_t>> list) {
      return g.Map(list, [&](Integer n) { return g.Call(kStamp, n).Named("stamp"); }).Named("all");
    }};

inline constexpr flux::Workflow<int64_t(int64_t)> kNap{
    "nap", {}, [](flux::Graph& g, Integer n) {
      auto before = g.Call(kAddOne, n).Named("before");
      auto nap = g.Sleep(absl::Milliseconds(150)).Named("nap").After(before);
      return g.Call(kAddOne, before).Named("after").After(nap);
    }};

inline constexpr flux::Workflow<int64_t(int64_t)> kFlaky{
    "flaky", {}, [](flux::Graph& g, Integer times) {
      return g.Call(kAddOne, g.Call(kFailTimes, times).Named("fail")).Named("add");
    }};

// Another execution does the work; its result comes back as an event that this one sends to itself.
inline constexpr flux::Event<int64_t> kNews{"e2e.news"};
inline constexpr flux::Workflow<int64_t(int64_t, std::string)> kFamily{
    "family", {}, [](flux::Graph& g, Integer n, flux::Value<std::string> self) {
      auto result = g.Child(kChain, n).Named("child");
      g.Emit(kNews, self, result).Named("tell");
      return g.Call(kAddOne, g.WaitEvent(kNews).Named("news")).Named("add");
    }};

inline constexpr flux::Workflow<std::string(std::string)> kGated{
    "gated", {}, [](flux::Graph& g, flux::Value<std::string> gate) {
      return g.Call(kWaitAtGate, gate).Named("wait");
    }};

// One task and nothing else, called as a raw worker likes it.
inline constexpr flux::Task<int64_t(int64_t)> kByHand{
    "e2e.by-hand",
    {.retry = {.max_attempts = 100, .initial_backoff = absl::Milliseconds(10), .jitter = 0}}};
inline constexpr flux::Workflow<int64_t(int64_t)> kByHandTwice{
    "by-hand", {}, [](flux::Graph& g, Integer n) {
      return g.Call(kByHand, g.Call(kByHand, n).Named("first")).Named("second");
    }};

template <typename Signature>
v1::Definition DefinitionOf(const flux::Workflow<Signature>& workflow) {
  v1::Definition definition;
  const auto& traced = workflow.Trace();
  EXPECT_TRUE(traced.ok()) << traced.status();
  if (traced.ok()) {
    EXPECT_TRUE(definition.ParseFromString(traced->definition_bytes));
  }
  return definition;
}

inline v1::Payload ToProto(flux::Payload payload) {
  v1::Payload proto;
  proto.set_data(std::move(payload.data));
  proto.set_encoding(static_cast<v1::Encoding>(payload.encoding));
  proto.set_content_type(std::move(payload.content_type));
  return proto;
}

// The value of a payload; nothing if it is none of the type (also a test failure).
template <typename T>
std::optional<T> Read(const v1::Payload& proto) {
  flux::Payload payload;
  payload.data = proto.data();
  payload.encoding = static_cast<flux::Encoding>(proto.encoding());
  payload.content_type = proto.content_type();
  absl::StatusOr<T> value = flux::Decode<T>(std::move(payload));
  EXPECT_TRUE(value.ok()) << value.status();
  if (!value.ok()) return std::nullopt;
  return *std::move(value);
}

// A start by name, with the workflow id also as request id.
template <typename Signature, typename... A>
v1::StartWorkflowRequest StartOf(const flux::Workflow<Signature>& workflow, const std::string& id,
                                 const A&... arguments) {
  v1::StartWorkflowRequest request;
  request.set_workflow(std::string(workflow.name()));
  request.set_workflow_id(id);
  request.set_request_id("request-of-" + id);
  request.set_identity("the end-to-end tests");
  auto inputs = workflow.EncodeArguments(arguments...);
  EXPECT_TRUE(inputs.ok()) << inputs.status();
  if (inputs.ok()) {
    for (flux::Payload& input : *inputs) *request.add_inputs() = ToProto(std::move(input));
  }
  return request;
}

}  // namespace flux::e2e

#endif  // FLUX_TESTS_E2E_WORKFLOWS_H_
