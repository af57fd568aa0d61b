package router

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"howdah/router/route"
	"howdah/router/rule"
	"howdah/router/wire"
)

// Each listener has a Unix-domain socket beside its port, if there is a directory for it: DIR/.s.PGSQL.PORT, as PostgreSQL's. There is no TLS on it, as in
// PostgreSQL, and rules of the type local are for it alone.

// maxSocketPath is the longest path that a socket may have: sun_path, with the zero byte at its end.
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// localName stands for the address of a client that comes by a Unix-domain socket, in messages and in the log, as in PostgreSQL's.
const localName = "[local]"

// localPeer is the address of such a client.
type localPeer struct{}

func (localPeer) Network() string { return "unix" }
func (localPeer) String() string  { return localName }

// abstract reports whether a directory stands for the abstract namespace, which has no files (libpq's host=@...).
func abstract(dir string) bool { return strings.HasPrefix(dir, "@") }

// validateUnixSocket returns the mistakes of the options about Unix-domain sockets.
func (o Options) validateUnixSocket() []error {
	var errs []error
	if _, err := o.socketMode(); err != nil {
		errs = append(errs, err)
	}
	switch dir := o.UnixSocketDir; {
	case dir == "":
	case !abstract(dir) && !filepath.IsAbs(dir):
		errs = append(errs, fmt.Errorf("unix-socket-dir: %q is not allowed; give an absolute path, or @ and a name for the abstract namespace", dir))
	case abstract(dir) && o.UnixSocketMode != DefaultOptions().UnixSocketMode:
		errs = append(errs, errors.New("unix-socket-mode: an abstract socket has no permissions, everybody on the machine may connect; give a directory, or leave the mode out"))
	case abstract(dir) && o.ReusePort:
		errs = append(errs, errors.New("unix-socket-dir: an abstract socket cannot be taken over by another router; give a directory, or leave so-reuseport off"))
	case len(socketPath(dir, "65535")) > maxSocketPath:
		errs = append(errs, fmt.Errorf("unix-socket-dir: %q is too long; the path of a socket has at most %d bytes", dir, maxSocketPath))
	}
	return errs
}

// socketMode is what the option unix-socket-mode means.
func (o Options) socketMode() (fs.FileMode, error) {
	mode, err := strconv.ParseUint(o.UnixSocketMode, 8, 32)
	if err != nil || mode > 0o777 {
		return 0, fmt.Errorf("unix-socket-mode: %q is not allowed; choose permissions in octal digits, as 0777, 0770 or 0700", o.UnixSocketMode)
	}
	return fs.FileMode(mode), nil
}

func socketPath(dir, port string) string { return dir + "/.s.PGSQL." + port }

// unixListener is a listener whose file goes with it, unless another router has put its own in that place.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo // nil in the abstract namespace
}

// Close stops listening and removes the file.
func (l *unixListener) Close() error {
	if l.file != nil {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
			os.Remove(l.path)
		}
	}
	return l.UnixListener.Close()
}

// listenUnix opens the sockets beside the listeners.
func (r *Router) listenUnix() error {
	if r.o.UnixSocketDir == "" {
		return nil
	}
	for of, l := range r.listeners {
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return err
		}
		path := socketPath(r.o.UnixSocketDir, port)
		for other, taken := range r.sockets {
			if taken.path == path {
				return fmt.Errorf("router: unix-socket-dir: the listeners for %s and %s sessions have the port %s both, and would have one socket; choose another port", other, of, port)
			}
		}
		s, err := r.listenUnixAt(path)
		if err != nil {
			return fmt.Errorf("router: unix-socket-dir: %w", err)
		}
		r.sockets[of] = s
	}
	return nil
}

// listenUnixAt opens one socket. It comes to its place with its permissions, and by a rename: a client finds the old router's or this one's, and none where
// nobody listens any more is in the way.
func (r *Router) listenUnixAt(path string) (*unixListener, error) {
	if abstract(path) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return nil, fmt.Errorf("another process may listen there: %w", err)
		}
		return &unixListener{UnixListener: l, path: path}, nil
	}
	if err := r.vacant(path); err != nil {
		return nil, err
	}
	mode, err := r.o.socketMode()
	if err != nil {
		return nil, err
	}
	made := filepath.Join(filepath.Dir(path), fmt.Sprintf(".howdah.%d", os.Getpid()))
	os.Remove(made) // of a process that had this one's number
	// Linux gives the file the permissions that the socket has, less the umask: nobody can connect who may not, before Chmod puts back what that took.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		failed := error(nil)
		err := raw.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), uint32(mode)) })
		return errors.Join(err, failed)
	}}
	opened, err := lc.Listen(context.Background(), "unix", made)
	if err != nil {
		return nil, fmt.Errorf("the router must be able to write in the directory: %w", err)
	}
	l := opened.(*net.UnixListener) // a listener of "unix" is no other
	l.SetUnlinkOnClose(false)
	s := &unixListener{UnixListener: l, path: path}
	if err = os.Chmod(made, mode); err == nil {
		s.file, err = os.Lstat(made)
	}
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		os.Remove(made)
		l.Close()
		return nil, err
	}
	return s, nil
}

// vacant returns an error if path is not for this router to take.
func (r *Router) vacant(path string) error {
	if _, err := os.Lstat(path + ".lock"); err == nil {
		return fmt.Errorf("%s is a PostgreSQL server's, as %[1]s.lock tells; choose another directory or port", path)
	}
	there, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case there.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is in the way, and no socket; remove it", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		defer conn.Close()
		if r.o.ReusePort && ours(newLink(conn.(socket))) {
			return nil
		}
		return fmt.Errorf("another process listens at %s; stop it, or choose another directory or port", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil // a process that is gone has left it
	}
	return fmt.Errorf("another process may listen there: %w", err)
}

// SocketPath returns where the Unix-domain socket of a route's listener is; empty if there is none.
func (r *Router) SocketPath(of route.Route) string {
	if l := r.sockets[of]; l != nil {
		return l.path
	}
	return ""
}

// underPeer lets a client in whose user of the operating system is its role, or is mapped to it (auth_peer, src/backend/libpq/auth.c).
func (c *client) underPeer(r rule.Rule, mappings []rule.Mapping) error {
	role := c.user
	name, err := c.conn.osUser()
	why := ""
	switch {
	case err != nil:
		why = err.Error()
	case len(role) > rule.MaxName:
		why = "the user name is longer than that of any role"
	case r.Certificate.Map == "" && name != role:
		why = fmt.Sprintf("the user of the operating system is %q", name)
	case r.Certificate.Map != "" && !rule.Allows(mappings, r.Certificate.Map, name, role):
		why = fmt.Sprintf("no line of ident-map lets %q be this user by the map %q", name, r.Certificate.Map)
	}
	if why != "" {
		return because{wire.Fatal(wire.CodeInvalidAuthorization, "Peer authentication failed for user \"%s\"", role), why}
	}
	c.vouched = true
	return nil
}

// osUser is the name of the user whose process is at the other end of a Unix-domain socket.
func (l *link) osUser() (string, error) {
	peer, err := l.peer()
	if err != nil {
		return "", err
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(peer.Uid), 10))
	if err != nil {
		return "", fmt.Errorf("the name of user %d of the operating system: %w", peer.Uid, err)
	}
	return u.Username, nil
}

// peer are the credentials that the other end of a Unix-domain socket had when it connected, or began to listen.
func (l *link) peer() (*unix.Ucred, error) {
	raw, err := l.socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	failed := error(nil)
	err = raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("the peer's credentials: %w", err)
	}
	return peer, nil
}

// ours reports whether it is a router that listens at the other end: a process of this user, as SO_REUSEPORT wants for a port, and of this program, if
// that can be seen.
func ours(l *link) bool {
	peer, err := l.peer()
	if err != nil || peer.Uid != uint32(os.Geteuid()) {
		return false
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", peer.Pid))
	mine, ownErr := os.Executable()
	if err != nil || ownErr != nil {
		return peer.Pid == 0 // of another namespace
	}
	return filepath.Base(strings.TrimSuffix(theirs, " (deleted)")) == filepath.Base(mine)
}

// local reports whether the client came by a Unix-domain socket.
func (l *link) local() bool {
	_, is := l.socket.(*net.UnixConn)
	return is
}

// from is the address of the client.
func (l *link) from() net.Addr {
	if l.local() {
		return localPeer{}
	}
	return l.socket.RemoteAddr()
}

func (r *Router) logListeners() {
	for of, l := range r.listeners {
		r.log.Info("router listens", zap.String("route", string(of)), zap.Stringer("address", l.Addr()), zap.String("socket", r.SocketPath(of)))
	}
}
