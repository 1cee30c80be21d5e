// The examples of docs/GUIDE.md that talk to a coordinator: a real fluxd. guide_test.cc compares
// the regions with the guide's blocks.
#include <signal.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "flux/client.h"
#include "flux/worker.h"
#include "flux/workflow.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/processes.h"
#include "tests/examples/guide_charts.h"

namespace charts {
namespace {

inline constexpr flux::Event<bool> kApproved{"approved"};
// The guide's, without its tasks: nobody works here.
inline constexpr flux::Workflow<bool(std::string)> kReviewed{
    "reviewed", [](flux::Graph& g, flux::Value<std::string>) { return g.WaitEvent(kApproved); }};

// The worker of the guide's `main`.
int Work(const std::string& target) {
  // guide: worker
  flux::Worker worker({.target = target, .queue = "nlp", .slots = 8});
  worker.Register(kCode,
                  [](flux::TaskContext& context, const Page& page) -> absl::StatusOr<std::string> {
                    if (page.text.empty()) return kBadPage("there is nothing to read");
                    if (context.cancelled())
                      return absl::CancelledError("nobody wants it any more");
                    return page.text + page.text;
                  });
  return worker.Run().ok() ? 0 : 1;  // until SIGTERM; then it finishes what runs
  // guide end
}

class GuideClientTest : public flux::e2e::EndToEnd {
 protected:
  uint64_t Count(const std::string& query) {
    flux::v1::ExecutionFilter filter;
    filter.set_query(query);
    auto count = api().Count(filter);
    EXPECT_TRUE(count.ok()) << count.status();
    return count.value_or(0);
  }
};

TEST_F(GuideClientTest, WorkerAndClient) {
  StartFluxd();
  const std::string target = fluxd_.target();
  flux::Worker others({.target = target, .handle_signals = false});
  others.Register(kSplit, [](const std::string& chart) {
    return std::vector<Page>{{1, chart.substr(0, 2)}, {2, chart.substr(2)}};
  });
  others.Register(kMerge, [](const std::vector<std::string>& codes) {
    std::string merged;
    for (const std::string& code : codes) merged += code;
    return merged;
  });
  ASSERT_TRUE(others.Start().ok());
  int exit_code = -1;
  std::thread work([&] { exit_code = Work(target); });
  // guide: client
  auto client = flux::Client::Connect(target);
  auto run = client->Start(kCodeChart, {.id = "chart-17"}, "17.txt");
  absl::StatusOr<std::string> codes = run->Result();
  // guide end
  EXPECT_TRUE(codes.ok()) << codes.status();
  EXPECT_EQ(codes.value_or(""), "1717.txt.txt");
  ::raise(SIGTERM);
  work.join();
  EXPECT_EQ(exit_code, 0);
}

TEST_F(GuideClientTest, StartLabels) {
  StartFluxd();
  auto client = flux::Client::Connect(fluxd_.target());
  ASSERT_TRUE(client.ok()) << client.status();
  // guide: start-labels
  auto run = client->Start(kReviewed, {.id = "chart-17", .labels = {{"tenant", "acme"}}}, "17.txt");
  // guide end
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(Count("label.tenant = \"acme\""), 1u);
  EXPECT_EQ(Count("label.tenant = \"other\""), 0u);
}

TEST_F(GuideClientTest, EventLater) {
  StartFluxd();
  auto client = flux::Client::Connect(fluxd_.target());
  ASSERT_TRUE(client.ok()) << client.status();
  auto run = client->Start(kReviewed, {.id = "chart-17"}, "17.txt");
  ASSERT_TRUE(run.ok()) << run.status();
  // guide: event-later
  auto tomorrow = absl::Now() + absl::Hours(24);
  auto sent = client->SendEvent(kApproved, "chart-17", true,
                                {.event_id = "mail-3", .deliver_at = tomorrow});
  auto waiting = run->ListEvents();              // it is there, and not delivered
  auto called_off = run->CancelEvent("mail-3");  // or sent anew under its id: that replaces it
  // guide end
  ASSERT_TRUE(sent.ok()) << sent.status();
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  ASSERT_EQ(waiting->size(), 1u);
  EXPECT_FALSE(waiting->front().delivered);
  EXPECT_EQ(waiting->front().deliver_at, absl::FromUnixMillis(absl::ToUnixMillis(tomorrow)));
  ASSERT_TRUE(called_off.ok()) << called_off.status();
  EXPECT_TRUE(run->ListEvents()->empty());
  EXPECT_EQ(*run->Status(), flux::ExecutionStatus::kRunning);
  ASSERT_TRUE(client->SendEvent(kApproved, "chart-17", false).ok());
  const auto approved = run->Result(flux::e2e::kPatience);
  ASSERT_TRUE(approved.ok()) << approved.status();
  EXPECT_FALSE(*approved) << "the delayed event came";
}

}  // namespace
}  // namespace charts
