#include "flux/error.h"

#include "flux/outcome.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace flux {
namespace {

constexpr ErrorType kBadPage{"bad-page", {.non_retriable = true}};
constexpr ErrorType kBusy{"busy"};

TEST(ErrorType, TravelsInAStatusAndBack) {
  const absl::Status status = kBadPage("page 7 is empty");
  EXPECT_EQ(status.message(), "bad-page: page 7 is empty");
  const Failure failure = FailureOf(status);
  EXPECT_EQ(failure.type, "bad-page");
  EXPECT_EQ(failure.message, "page 7 is empty");
  EXPECT_TRUE(failure.non_retriable);
  EXPECT_TRUE(kBadPage.Is(status));
  EXPECT_FALSE(kBusy.Is(status));
  EXPECT_FALSE(kBusy.Is(absl::OkStatus()));
  EXPECT_FALSE(FailureOf(kBusy("later")).non_retriable);
}

TEST(ErrorType, KeepsItsTypeWhenTheMessageIsNotText) {
  const Failure failure = FailureOf(kBusy("ab\xFF"));
  EXPECT_EQ(failure.type, "busy");
  EXPECT_EQ(failure.message, "ab");
}

TEST(FailureOf, NamesEveryCodeAndComesBackAsIt) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const Failure failure = FailureOf(status);
    EXPECT_EQ(failure.type.substr(0, 12), "flux.status.") << code;
    EXPECT_EQ(failure.message, "why");
    EXPECT_EQ(ToStatus(failure).code(), status.code());
  }
  EXPECT_EQ(FailureOf(absl::NotFoundError("x")).type, "flux.status.not_found");
}

TEST(ToStatus, SaysTypeAndMessageAndKeepsTheFailure) {
  Failure failure;
  failure.type = "flux.timeout.heartbeat";
  failure.message = "silent for 3 s";
  failure.source = "host:1";
  const absl::Status status = ToStatus(failure);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(status.message(), "flux.timeout.heartbeat: silent for 3 s");
  EXPECT_EQ(FailureOf(status).source, "host:1");
  EXPECT_TRUE(errors::kHeartbeat.Is(status));
}

TEST(NonRetriable, MarksAnyStatus) {
  EXPECT_TRUE(FailureOf(NonRetriable(absl::NotFoundError("x"))).non_retriable);
  EXPECT_TRUE(FailureOf(NonRetriable(kBusy("x"))).non_retriable);
  EXPECT_TRUE(kBusy.Is(NonRetriable(kBusy("x"))));
  EXPECT_TRUE(NonRetriable(absl::OkStatus()).ok());
}

TEST(Skipped, IsAStatusOfItsOwn) {
  EXPECT_TRUE(flux::IsSkipped(SkippedStatus("the result")));
  EXPECT_FALSE(flux::IsSkipped(absl::OkStatus()));
  EXPECT_FALSE(flux::IsSkipped(kBusy("x")));
}

TEST(ErrorTypes, RemembersThatThereWereTooMany) {
  constexpr ErrorTypes kTwo = {kBadPage, kBusy};
  EXPECT_EQ(kTwo.size(), 2u);
  EXPECT_FALSE(kTwo.too_many());
  const ErrorTypes many = {kBusy, kBusy, kBusy, kBusy, kBusy, kBusy, kBusy, kBusy, kBusy,
                           kBusy, kBusy, kBusy, kBusy, kBusy, kBusy, kBusy, kBusy};
  EXPECT_TRUE(many.too_many());
  EXPECT_EQ(many.end() - many.begin(), 16);
}

TEST(Outcome, IsAValueAFailureOrSkip) {
  EXPECT_EQ(Outcome<int>(7).value(), 7);
  EXPECT_TRUE(Outcome<std::string>("text").has_value());
  EXPECT_TRUE(Outcome<int>(Skip{}).skipped());
  EXPECT_TRUE(kBusy.Is(Outcome<int>(kBusy("x")).status()));
  EXPECT_EQ(Outcome<int>(absl::StatusOr<int>(8)).value(), 8);
  EXPECT_TRUE(kBusy.Is(Outcome<int>(absl::StatusOr<int>(kBusy("x"))).status()));
  EXPECT_TRUE(Outcome<void>(absl::OkStatus()).has_value());
  EXPECT_EQ(Outcome<int>(absl::OkStatus()).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace flux
