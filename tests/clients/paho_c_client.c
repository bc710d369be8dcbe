/* What the interoperability tests ask of Paho C: very many messages at once, at each QoS.
 *
 * Called as: client URI VERSION(4|5) SCENARIO. Exit code 0 means the scenario held. Paho C loses what comes
 * behind the first packet of a WebSocket frame, so bursts are what matters: `retained` makes the broker send
 * all it keeps in a few batches, `burst` publishes as fast as it can.
 */
#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGES = 200, PATIENCE_MS = 60000 };

static const char *uri;
static int version;

static void check(int code, const char *what) {
  if (code != 0) {
    printf("%s: %d\n", what, code);
    exit(1);
  }
}

static MQTTClient enter(const char *name) {
  MQTTClient client;
  char id[64];
  snprintf(id, sizeof id, "paho-c-%s-%ld", name, (long)getpid());
  MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
  create.MQTTVersion = version == 5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
  check(MQTTClient_createWithOptions(&client, uri, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create), "create");
  if (version == 5) {
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer5;
    options.cleanstart = 1;
    options.maxInflightMessages = 2 * MESSAGES;
    MQTTResponse response = MQTTClient_connect5(client, &options, NULL, NULL);
    check(response.reasonCode, "connect");
    MQTTResponse_free(response);
  } else {
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    options.MQTTVersion = MQTTVERSION_3_1_1;
    options.maxInflightMessages = 2 * MESSAGES;
    check(MQTTClient_connect(client, &options), "connect");
  }
  return client;
}

static void subscribe(MQTTClient client, const char *filter, int qos) {
  if (version == 5) {
    MQTTResponse response = MQTTClient_subscribe5(client, filter, qos, NULL, NULL);
    check(response.reasonCode != qos, "subscribe");
    MQTTResponse_free(response);
  } else {
    check(MQTTClient_subscribe(client, filter, qos), "subscribe");
  }
}

static void publish(MQTTClient client, const char *topic, int number, int qos, int retained) {
  char payload[16];
  int length = snprintf(payload, sizeof payload, "%d", number);
  MQTTClient_deliveryToken token = 0;
  if (version == 5) {
    MQTTResponse response = MQTTClient_publish5(client, topic, length, payload, qos, retained, NULL, &token);
    check(response.reasonCode, "publish");
    MQTTResponse_free(response);
  } else {
    check(MQTTClient_publish(client, topic, length, payload, qos, retained, &token), "publish");
  }
  /* What is acknowledged last was published last; the library takes 100 ms to see that. */
  if (qos > 0 && number == MESSAGES - 1) {
    check(MQTTClient_waitForCompletion(client, token, PATIENCE_MS), "completion");
  }
}

/* Each message once. */
static void expect_all(MQTTClient client, const char *what, int qos) {
  char seen[MESSAGES] = {0};
  for (int count = 0; count < MESSAGES; count++) {
    char *topic = NULL;
    int length = 0;
    MQTTClient_message *message = NULL;
    int code = MQTTClient_receive(client, &topic, &length, &message, PATIENCE_MS);
    if ((code != 0 && code != MQTTCLIENT_TOPICNAME_TRUNCATED) || message == NULL) {
      printf("%s at QoS %d: %d of %d arrived (%d)\n", what, qos, count, MESSAGES, code);
      exit(1);
    }
    char text[16] = {0};
    memcpy(text, message->payload, message->payloadlen < 15 ? message->payloadlen : 15);
    int number = atoi(text);
    check(number < 0 || number >= MESSAGES || seen[number]++ || message->qos != qos, "a message twice or wrong");
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
  }
}

int main(int count, char **words) {
  if (count != 4) {
    return 2;
  }
  uri = words[1];
  version = atoi(words[2]);
  int retained = strcmp(words[3], "retained") == 0;
  MQTTClient reader = enter("reader"), writer = enter("writer");
  for (int qos = 0; qos <= 2; qos++) {
    char topic[128], filter[140];
    snprintf(topic, sizeof topic, "paho-c/%ld/%ld/%d", (long)getpid(), (long)time(NULL), qos);
    snprintf(filter, sizeof filter, "%s/#", topic);
    if (!retained) {
      subscribe(reader, filter, qos);
    }
    for (int number = 0; number < MESSAGES; number++) {
      char of_one[160];
      snprintf(of_one, sizeof of_one, "%s/%d", topic, number);
      publish(writer, of_one, number, qos, retained);
    }
    if (retained) {
      subscribe(reader, filter, qos);
    }
    expect_all(reader, words[3], qos);
  }
  MQTTClient_disconnect(reader, 1000);
  MQTTClient_disconnect(writer, 1000);
  return 0;
}
