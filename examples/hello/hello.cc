// The smallest whole program: a task, a workflow, a worker and a client. Start `fluxd dev` first.
#include <iostream>
#include <string>

#include "flux/client.h"
#include "flux/worker.h"
#include "flux/workflow.h"

inline constexpr flux::Task<std::string(std::string)> kGreet{"hello.greet"};
inline constexpr flux::Workflow<std::string(std::string)> kHello{
    "hello", {}, [](flux::Graph& g, flux::Value<std::string> name) {
      return g.Call(kGreet, name);
    }};

int main(int argc, char** argv) {
  flux::Worker worker({.target = "127.0.0.1:4510"});
  worker.Register(kGreet, [](const std::string& name) { return "Hello, " + name + "!"; });
  if (absl::Status status = worker.Start(); !status.ok()) return std::cerr << status << "\n", 1;

  auto client = flux::Client::Connect("127.0.0.1:4510");
  if (!client.ok()) return std::cerr << client.status() << "\n", 1;
  auto run = client->Start(kHello, {}, std::string(argc > 1 ? argv[1] : "world"));
  auto greeting = run.ok() ? run->Result() : run.status();
  if (!greeting.ok()) return std::cerr << greeting.status() << "\n", 1;
  std::cout << *greeting << "\n";
}
