#include "tests/sim/ledger.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flux::sim {

std::vector<std::string> TextsOf(const v1::Task& task) {
  std::vector<std::string> texts;
  for (const v1::TaskInput& input : task.inputs()) {
    texts.push_back(absl::StrCat(TextOf(input.payload()), input.pointer()));
  }
  return texts;
}

std::string TextOf(const v1::TaskToken& token) {
  return absl::StrCat("run ", absl::BytesToHexString(token.run_id()), " frame ", token.frame(),
                      " step ", token.step(), " generation ", token.generation(), " delivery ",
                      token.delivery(), " incarnation ", token.incarnation());
}

void Ledger::HandedOut(const v1::Task& task) {
  const v1::TaskToken& token = task.token();
  if (!tokens_.insert(token.SerializeAsString()).second) {
    problem_(absl::StrCat("a token was handed out twice: ", TextOf(token), ", step ", task.step()));
  }
  uint64_t& latest = latest_[IdOf(token)];
  if (token.delivery() < latest) {
    problem_(absl::StrCat("delivery numbers went backwards: ", TextOf(token), " after delivery ",
                          latest, ", step ", task.step()));
  }
  latest = std::max(latest, token.delivery());
  if (const auto it = recorded_.find(IdOf(token)); it != recorded_.end()) {
    problem_(absl::StrCat("handed out although the result of delivery ", it->second,
                          " was acknowledged: ", TextOf(token), ", step ", task.step()));
  }
  const auto [known, fresh] = inputs_.try_emplace(IdOf(token), TextsOf(task));
  if (!fresh && known->second != TextsOf(task)) {
    problem_(absl::StrCat("another delivery of a step has other inputs: ", TextOf(token), ", step ",
                          task.step(), ", given ", absl::StrJoin(known->second, " and "),
                          " and then ", absl::StrJoin(TextsOf(task), " and ")));
  }
  Delivered& delivered = delivered_[{token.run_id(), task.step()}];
  ++delivered.deliveries;
  delivered.task = task.name();
  delivered.inputs = TextsOf(task);
}

uint64_t Ledger::Latest(const v1::TaskToken& token) const {
  const auto it = latest_.find(IdOf(token));
  return it == latest_.end() ? 0 : it->second;
}

void Ledger::Answered(const v1::TaskToken& token) { answered_.insert(token.SerializeAsString()); }

void Ledger::Forged(const v1::TaskToken& token) {
  std::string bytes = token.SerializeAsString();
  if (!answered_.contains(bytes)) forged_.insert(std::move(bytes));
}

void Ledger::Garbled(const v1::Task& task) {
  garbled_.insert({task.token().run_id(), task.step()});
}

bool Ledger::WasGarbled(const std::string& run, const std::string& path) const {
  return garbled_.contains({run, path});
}

void Ledger::Acknowledged(const v1::ResultAck& ack, bool settles) {
  if (ack.status() != v1::ACK_STATUS_RECORDED) return;
  if (forged_.contains(ack.token().SerializeAsString())) {
    problem_(absl::StrCat("a forged result was recorded: ", TextOf(ack.token())));
  }
  if (!settles) return;
  const auto [it, fresh] = recorded_.try_emplace(IdOf(ack.token()), ack.token().delivery());
  if (!fresh && it->second != ack.token().delivery()) {
    problem_(absl::StrCat("results of two deliveries were recorded: ", it->second, " and ",
                          TextOf(ack.token())));
  }
}

}  // namespace flux::sim
