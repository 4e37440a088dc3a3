import java.io.FileInputStream;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import okhttp3.Credentials;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;
import com.google.gson.JsonParser;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.GetSessionConnectionDataApi;
import org.openapitools.client.api.ServersApi;
import org.openapitools.client.api.SessionPermissionsApi;
import org.openapitools.client.api.SessionsApi;
import org.openapitools.client.model.*;

/**
 * The examples of Session Manager's guide and the life of a session, with the client that openapi-generator made with
 * its library okhttp-gson. That client throws on every property that the API file does not name.
 *
 * <p>Settings come as in the env file of hack/up. Ends with an error at the first thing that is not as documented.
 */
public final class Life {
    private static final String URL = System.getenv("BROKER_URL");
    private static final String OWNER = System.getenv("OWNER");
    private static final String GUEST = System.getenv("OTHER_OWNER");
    private static final String ON_LINUX =
            "server:Host.Os.Family = 'linux' and server:Host.Memory.TotalBytes > 1024E6";

    private final SessionsApi sessions;
    private final ServersApi servers;
    private final SessionPermissionsApi permissions;
    private final GetSessionConnectionDataApi connectionData;

    private Life(ApiClient client) {
        sessions = new SessionsApi(client);
        servers = new ServersApi(client);
        permissions = new SessionPermissionsApi(client);
        connectionData = new GetSessionConnectionDataApi(client);
    }

    private static void expect(boolean condition, Object what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static ApiClient client() throws Exception {
        ApiClient client = new ApiClient().setBasePath(URL);
        try (FileInputStream ca = new FileInputStream(System.getenv("BROKER_CA"))) {
            client.setSslCaCert(ca);
        }
        Request request = new Request.Builder()
                .url(URL + "/oauth2/token?grant_type=client_credentials")
                .header("Authorization", Credentials.basic(System.getenv("CLIENT_ID"), System.getenv("CLIENT_SECRET")))
                .post(RequestBody.create(new byte[0]))
                .build();
        try (Response answer = client.getHttpClient().newCall(request).execute()) {
            String body = answer.body().string();
            expect(answer.code() == 200, body);
            client.setBearerToken(JsonParser.parseString(body).getAsJsonObject().get("access_token").getAsString());
        }
        return client;
    }

    private List<Server> describeServers(List<String> ids) throws ApiException {
        DescribeServersResponse answer = servers.describeServers(new DescribeServersRequestData().serverIds(ids));
        UUID.fromString(answer.getRequestId());
        return answer.getServers();
    }

    /** The guide's three. Its permissions file is a path where base64 is due, so the first fails and is echoed. */
    private List<String> createSessions() throws ApiException {
        CreateSessionsResponse answer = sessions.createSessions(List.of(
                new CreateSessionRequestData()
                        .name("console").owner(OWNER).type("CONSOLE").maxConcurrentClients(1L)
                        .permissionsFile("/dcv/permissions.file").requirements(ON_LINUX).storageRoot("/storage/root"),
                new CreateSessionRequestData()
                        .name("virtual").owner(OWNER).type("VIRTUAL").maxConcurrentClients(1L)
                        .autorunFile("myapp.sh").dcvGlEnabled(false).requirements(ON_LINUX),
                new CreateSessionRequestData()
                        .name("virtual").owner(OWNER).type("VIRTUAL").maxConcurrentClients(1L)
                        .initFilePath("/dcv/script.sh").autorunFile("myapp.sh")
                        .autorunFileArguments(List.of("argument1", "argument2"))
                        .dcvGlEnabled(false).requirements(ON_LINUX)));
        expect(answer.getUnsuccessfulList().size() == 1 && answer.getSuccessfulList().size() == 2, answer);
        UnsuccessfulCreateSessionRequestData failed = answer.getUnsuccessfulList().get(0);
        expect(failed.getFailureReason().contains("PermissionsFile"), failed);
        expect("/dcv/permissions.file".equals(failed.getCreateSessionRequestData().getPermissionsFile()), failed);
        for (Session made : answer.getSuccessfulList()) {
            expect("CREATING".equals(made.getState()) && "SESSION_PLACING".equals(made.getSubstate()), made);
            expect(made.getCreationTime() != null, made);
        }
        return answer.getSuccessfulList().stream().map(Session::getId).toList();
    }

    private Session describeSession(String id) throws ApiException {
        DescribeSessionsResponse answer = sessions.describeSessions(new DescribeSessionsRequestData()
                .addSessionIdsItem(id).addFiltersItem(new KeyValuePair().key("owner").value(OWNER)).maxResults(10));
        expect(answer.getNextToken() == null, answer);
        return answer.getSessions().isEmpty() ? null : answer.getSessions().get(0);
    }

    /** Polls as portals do. An absent session is as good as a deleted one. */
    private Session until(String id, String state) throws Exception {
        Session session = null;
        for (int i = 0; i < 300; i++) {
            session = describeSession(id);
            if (state.equals(session == null ? "DELETED" : session.getState())) {
                return session;
            }
            Thread.sleep(100);
        }
        throw new AssertionError(id + " is not " + state + ": " + session);
    }

    /** Polls, as another broker may answer than the one that closed or opened it. */
    private void untilServer(String id, String availability, String reason) throws Exception {
        Server server = null;
        for (int i = 0; i < 100; i++) {
            server = describeServers(List.of(id)).get(0);
            if (availability.equals(server.getAvailability())
                    && java.util.Objects.equals(reason, server.getUnavailabilityReason())) {
                return;
            }
            Thread.sleep(100);
        }
        throw new AssertionError(server);
    }

    private void getConnectionData(String id) throws ApiException {
        GetSessionConnectionDataResponse answer = connectionData.getSessionConnectionData(id, GUEST);
        Server server = answer.getSession().getServer();
        System.out.printf("https://%s:%s%s?authToken=…#%s%n",
                server.getIp(), server.getPort(), server.getWebUrlPath(), answer.getSession().getId());
        expect(answer.getSession().getId().equals(id), answer.getSession());
        expect(answer.getConnectionToken().split("\\.").length == 3, "the token has three parts");
        expect(server.getEndpoints().get(0).getPort() > 0, server);
        try {
            connectionData.getSessionConnectionData(UUID.randomUUID().toString(), GUEST);
            throw new AssertionError("connection data of no session");
        } catch (ApiException error) {
            String text = JsonParser.parseString(error.getResponseBody()).getAsJsonObject().get("error").getAsString();
            expect(error.getCode() == 400 && text.equals("The requested dcvSession does not exist"), error);
        }
    }

    private void getScreenshots(String id) throws ApiException {
        GetSessionScreenshotsResponse answer = sessions.getSessionScreenshots(List.of(
                new GetSessionScreenshotRequestData().sessionId(id).maxWidth(64L).maxHeight(64L),
                new GetSessionScreenshotRequestData().sessionId(UUID.randomUUID().toString())));
        expect(answer.getSuccessfulList().size() == 1 && answer.getUnsuccessfulList().size() == 1, answer);
        SessionScreenshot shot = answer.getSuccessfulList().get(0).getSessionScreenshot();
        expect(shot.getSessionId().equals(id) && shot.getImages().size() == 1, shot);
        SessionScreenshotImage image = shot.getImages().get(0);
        expect(image.getPrimary() && Set.of("png", "jpeg").contains(image.getFormat()), image);
        expect(Base64.getDecoder().decode(image.getData()).length > 0 && image.getCreationTime() != null, image);
        String reason = answer.getUnsuccessfulList().get(0).getFailureReason();
        expect(reason.equals("Dcv session not found."), reason);
    }

    private void updateSessionPermissions(String id) throws ApiException {
        byte[] file = "[permissions]\n%owner% allow builtin\n".getBytes();
        String text = Base64.getEncoder().encodeToString(file);
        UpdateSessionPermissionsResponse answer = permissions.updateSessionPermissions(List.of(
                new UpdateSessionPermissionsRequestData().sessionId(id).owner(OWNER).permissionsFile(text),
                new UpdateSessionPermissionsRequestData()
                        .sessionId(UUID.randomUUID().toString()).owner(OWNER).permissionsFile(text)));
        expect(answer.getSuccessfulList().size() == 1 && answer.getUnsuccessfulList().size() == 1, answer);
        expect(answer.getSuccessfulList().get(0).getSessionId().equals(id), answer);
    }

    private void closeAndOpenServers(Session session) throws Exception {
        String id = session.getServer().getId();
        String unknown = UUID.randomUUID().toString();
        CloseServersResponse closed = servers.closeServers(List.of(
                new CloseServerRequestData().serverId(id).force(false),
                new CloseServerRequestData().serverId(id).force(true),
                new CloseServerRequestData().serverId(unknown)));
        expect(closed.getSuccessfulList().size() == 1 && closed.getUnsuccessfulList().size() == 2, closed);
        expect(closed.getSuccessfulList().get(0).getServerId().equals(id), closed);
        CloseServerUnsuccessfulResponse full = closed.getUnsuccessfulList().get(0);
        expect(full.getCloseServerRequestData().getServerId().equals(id) && full.getFailureCode() != null, full);
        CloseServerUnsuccessfulResponse absent = closed.getUnsuccessfulList().get(1);
        expect(absent.getFailureCode().equals("DCV_SERVER_NOT_FOUND"), absent);
        expect(absent.getFailureReason().equals("Dcv server not found."), absent);
        untilServer(id, "UNAVAILABLE", "SERVER_CLOSED");
        until(session.getId(), "READY");

        OpenServersResponse opened = servers.openServers(List.of(
                new OpenServerRequestData().serverId(id), new OpenServerRequestData().serverId(unknown)));
        expect(opened.getSuccessfulList().size() == 1 && opened.getUnsuccessfulList().size() == 1, opened);
        expect(opened.getUnsuccessfulList().get(0).getOpenServerRequestData().getServerId().equals(unknown), opened);
        untilServer(id, "AVAILABLE", null);
    }

    private void deleteSessions(List<String> ids) throws ApiException {
        List<DeleteSessionRequestData> requests = new java.util.ArrayList<>();
        for (String id : ids) {
            requests.add(new DeleteSessionRequestData().sessionId(id).owner(OWNER));
        }
        requests.add(new DeleteSessionRequestData().sessionId(UUID.randomUUID().toString()).owner(OWNER));
        DeleteSessionsResponse answer = sessions.deleteSessions(requests);
        expect(answer.getSuccessfulList().size() == ids.size() && answer.getUnsuccessfulList().size() == 1, answer);
        expect(answer.getSuccessfulList().stream().allMatch(item -> item.getState().equals("DELETING")), answer);
        String reason = answer.getUnsuccessfulList().get(0).getFailureReason();
        expect(reason.equals("The requested dcvSession does not exist"), reason);
    }

    private void live() throws Exception {
        expect(describeServers(List.of()).stream().anyMatch(server ->
                server.getHost().getOs().getFamily().equals("linux") && server.getAvailability().equals("AVAILABLE")),
                "no server");
        List<String> ids = createSessions();
        for (String id : ids) {
            until(id, "READY");
        }
        Session session = describeSession(ids.get(0));
        expect(describeServers(List.of(session.getServer().getId())).get(0).getVirtualSessionCount() >= 1, session);
        getConnectionData(ids.get(0));
        getScreenshots(ids.get(0));
        updateSessionPermissions(ids.get(0));
        closeAndOpenServers(session);
        deleteSessions(ids);
        for (String id : ids) {
            until(id, "DELETED");
        }
    }

    public static void main(String[] arguments) throws Exception {
        new Life(client()).live();
        // OkHttp's idle threads would keep the program for a minute.
        System.exit(0);
    }
}
